"""``placement`` or ``layers = "auto"``: chosen on the support set and kept with the run, to be resumed there."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kusabi.data.dataset import Dataset, Example
from kusabi.errors import CheckpointError
from kusabi.recipes.run_folder import write_json
from kusabi.recipes.watch import Watch, once, stage
from kusabi.spec import AUTO
from kusabi.training.depth_choice import RULE as DEPTH_RULE
from kusabi.training.depth_choice import goes_deep, open_depth
from kusabi.training.learn import Setting
from kusabi.training.placed import at, deepened
from kusabi.training.placement_choice import RULE, choose_placement, pulls
from kusabi.training.views import encode_views

CHOSEN = "placement.json"


def settled(
    setting: Setting, dataset: Dataset, support: Sequence[Example], *, watch: Watch, run: Path | None
) -> Setting:
    """The setting with a placement that no longer depends on gradients; its own where it names one.

    Args:
        setting: Its plan is that of the spec without a placement, whose entries are the budget.
        dataset: Where the pictures come from.
        support: The labelled pictures.
        watch: Told about progress.
        run: Folder whose ``placement.json`` is read, or written where there is none.

    Raises:
        AdapterError: If gradients are not finite.
        CheckpointError: If the file in the run is damaged.
    """
    spec = setting.spec
    look = _pulled if spec.adapter.placement == AUTO else _deep if open_depth(spec) else None
    if look is None:
        return setting
    found = _chosen_before(run) if run else None
    if found is None:
        found = look(setting, dataset, support, watch)
        if run:
            write_json(run / CHOSEN, found)
        watch("placement chosen", 1, 1)
    return setting if found["placement"] is None else at(setting, found["placement"], found["budget"])


def _deep(setting: Setting, dataset: Dataset, support: Sequence[Example], watch: Watch) -> dict[str, Any]:
    """All layers, or the plan as it is; of as many entries."""
    deep, share = goes_deep(setting, dataset, support)
    return {
        "placement": deepened(setting).spec.adapter.placement if deep else None,
        "budget": setting.plan.entries,
        "rule": DEPTH_RULE,
        "upper_share": share,
    }


def _pulled(setting: Setting, dataset: Dataset, support: Sequence[Example], watch: Watch) -> dict[str, Any]:
    """The layers with most gradient, at the plan's entries."""
    data = setting.spec.data
    frozen = encode_views(
        setting.backbone, dataset, support, None, views=data.views, augment=data.augment, seed=setting.spec.seed,
        precision=setting.precision, progress=stage(watch, "placement"), decoded=once(watch, "pictures decoded"),
    )  # fmt: skip
    # Without states, the few pictures that are differentiated are shown again.
    measured = pulls(setting, replace(frozen, layer=0))
    budget = setting.plan.entries
    return {
        "placement": choose_placement(measured, budget),
        "budget": budget,
        "rule": RULE,
        "energies": [pull.to_json() for pull in measured],
    }


def _chosen_before(run: Path) -> dict[str, Any] | None:
    path = run / CHOSEN
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["placement"], str | None) and type(found["budget"]) is int:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"{path}: damaged; delete the run, or this file to have the placement chosen again")
