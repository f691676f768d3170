"""How deep an adapter sits where ``layers`` is ``auto``: in the upper half of the tower, or in all of it.

The upper half is the better place where the model sees the pictures well and only tells the classes apart poorly. Where
it has hardly seen the like (a few grey pixels, a blurred line), what has to change lies below, and the labelled ones
say so: in one backward the upper half holds a small share of the gradient energy per weight. With three classes it
is neither help nor harm on average; with one picture a class all layers are ahead, and no look is taken.
Measured in ``benchmarks/depth.py`` and ``benchmarks/one_shot.py``.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from kusabi.adapters.targets import plan
from kusabi.data.dataset import Dataset, Example
from kusabi.spec import AUTO, AdaptSpec
from kusabi.training.learn import Setting
from kusabi.training.placement_choice import SHARE, layer_energies, pulls_on
from kusabi.training.views import encode_views

FEWEST = 5
"""Classes from which on a look is taken; drawn after a fall on fabrics, see ``benchmarks/depth.py``."""
RULE = (
    f"all layers where, of {FEWEST} classes or more, each has one picture or the upper half holds less than {SHARE} of "
    "the gradient energy"
)
MOST = 40
"""Pictures that are differentiated; a few of every class say what all say."""


def open_depth(spec: AdaptSpec) -> bool:
    """Whether the pictures say how deep the adapter sits: measured for sparse deltas."""
    adapter = spec.adapter
    left_open = adapter.layers == AUTO and adapter.placement is None
    return left_open and adapter.tower == "vision" and adapter.kind == "sparse_delta"


def goes_deep(setting: Setting, dataset: Dataset, support: Sequence[Example]) -> tuple[bool, float | None]:
    """Whether the adapter sits in all layers, and the share of the pull that said so; None where no look was taken.

    Args:
        setting: What is asked; its plan is not looked at.
        dataset: Where the pictures come from.
        support: The labelled pictures.

    Raises:
        AdapterError: If gradients are not finite, or zero everywhere.
    """
    if len(setting.prompts) < FEWEST:
        return False, None
    if setting.shots == 1:
        return True, None
    share = upper_share(setting, dataset, support)
    return share < SHARE, share


def upper_share(setting: Setting, dataset: Dataset, support: Sequence[Example]) -> float:
    """Share of the upper half of the vision tower in the gradient energy per weight, of some of the pictures.

    Raises:
        AdapterError: If gradients are not finite, or zero everywhere.
    """
    sample, classes = _some(support)
    backbone, spec = setting.backbone, setting.spec
    views = encode_views(
        backbone, dataset, sample, 0, views=1, augment="none", seed=spec.seed, precision=setting.precision
    )
    number = {label: row for row, label in enumerate(classes)}
    labels = torch.tensor([number[label] for label in views.labels.tolist()], device=views.labels.device)
    views = replace(views, labels=labels)
    own = replace(setting, prompts=[setting.prompts[label] for label in classes], text=setting.text[classes])
    everywhere = spec.adapter.model_copy(update={"layers": "all", "density": 1.0, "budget": None})
    whole = plan(backbone.module, backbone.blocks, everywhere)
    energies = [energy for _, energy in sorted(layer_energies(pulls_on(own, views, whole)).items())]
    return sum(energies[len(energies) // 2 :]) / sum(energies)


def _some(support: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """At most ``MOST`` pictures, as many of each of their classes, and these; evenly from the classes there are."""
    labels = sorted({example.label for example in support})
    each = max(2, MOST // len(labels))
    classes = labels[:: -(-len(labels) * each // MOST)]
    chosen: list[Example] = []
    for label in classes:
        chosen += [example for example in support if example.label == label][:each]
    return chosen, classes
