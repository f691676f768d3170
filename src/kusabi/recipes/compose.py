"""Several adapters become one: what they would do to each other, what it costs, and then an adapter folder."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast, get_args

from kusabi.adapters.checkpoint import CARD, WEIGHTS, Adapter, load_adapter, save_adapter
from kusabi.adapters.compose import How
from kusabi.adapters.compose_adapters import check_alike, compose_adapters, interference_of, labels_of
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import RunError, SpecError
from kusabi.files import check_place
from kusabi.recipes.measured_loss import measured_loss
from kusabi.recipes.question import use_device
from kusabi.recipes.run_folder import adapter_folder
from kusabi.recipes.stored_adapter import open_adapter
from kusabi.recipes.watch import Watch, silent

Show = Callable[[Mapping[str, Any]], None]


def compose(
    runs: Sequence[Path], out: Path | None, *, weights: Sequence[float] | None = None, how: str = "sum",
    density: float = 1.0, dry_run: bool = False, measure: Sequence[str] = (), backbone: str | None = None,
    device: str = "cpu", threads: int | None = None, label_column: str = "label", group_column: str | None = None,
    skip_unreadable: bool = False, show: Show | None = None, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Write the composition of some adapters as an adapter folder.

    Args:
        runs: Run folders or adapter folders.
        out: Where to; must be new or empty. May be absent in a dry run.
        weights: One for each adapter; 1 when absent.
        how: ``sum``, ``ties`` or ``disjoint``, see ``adapters.compose``.
        density: Share of each adapter's entries that ``ties`` keeps.
        dry_run: Say what would come out and write nothing.
        measure: One labelled folder for each adapter, in the same order: what composing costs there, for the card.
            Nothing is chosen by it.
        backbone: Model folder or Hub id to measure with; where the first run or its card says when absent.
        device: Where the model runs.
        threads: CPU threads; torch's own choice when absent.
        label_column: Of the labelled folders.
        group_column: Of them, whose groups intervals count (lot, patient, camera); pictures when absent.
        skip_unreadable: Leave unreadable pictures out.
        show: Told the sources and their interference before anything is composed or written.
        watch: Told about progress.

    Returns:
        ``sources``, ``interference`` (None for one adapter) and its ``table``; ``composed`` and ``measured``.

    Raises:
        KusabiError: Whatever the user can put right; nothing half-written is left.
    """
    factors = [1.0] * len(runs) if weights is None else [float(weight) for weight in weights]
    _check(runs, None if dry_run else out, factors, how, density, dry_run, measure, group_column)
    folders = [adapter_folder(run) for run in runs]
    adapters = [load_adapter(folder) for folder in folders]
    labels = labels_of(adapters)
    check_alike(adapters, labels)
    card = interference_of(adapters, labels)
    sources = [
        {"run": str(run), "label": label, "weight": weight, "kind": adapter.card["kind"],
         "entries": sum(map(len, adapter.parts)), "classes": len(adapter.card["classes"])}
        for run, label, weight, adapter in zip(runs, labels, factors, adapters, strict=True)
    ]  # fmt: skip
    found: dict[str, Any] = {
        "sources": sources,
        "interference": _totals(card.to_json()["pairs"]) if card else None,
        "table": card.table() if card else None,
    }
    if show:
        show(found)
    composed = compose_adapters(adapters, labels, factors, cast(How, how), density=density)
    if measure:
        use_device(device, threads)
        stored = open_adapter(runs[0], backbone=backbone, device=device)
        found["measured"] = measured_loss(
            stored.backbone, adapters, labels, composed, measure, label_column=label_column,
            group_column=group_column, skip_unreadable=skip_unreadable, watch=watch,
        )  # fmt: skip
    found["composed"] = {
        "how": how,
        "kind": composed.card["kind"],
        "entries": sum(map(len, composed.parts)),
        "classes": composed.card["classes"],
    }
    if out is not None and not dry_run:
        found["composed"] |= {"out": str(out), "digest": _write(out, _finished(composed, folders, found))}
    return found


def _check(
    runs: Sequence[Path], out: Path | None, weights: Sequence[float], how: str, density: float, dry_run: bool,
    measure: Sequence[str], measured_by: str | None,
) -> None:  # fmt: skip
    if out is None and not dry_run:
        raise SpecError("--out is missing: give the folder to write, or --dry-run to write nothing")
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RunError(f"{out}: something is there already; choose another --out")
    if how not in get_args(How):
        raise SpecError(f"--how {how}: not known; choose {', '.join(get_args(How))}")
    if len(weights) != len(runs):
        raise SpecError(f"--weights has {len(weights)} numbers for {len(runs)} adapters; give one for each, in order")
    if not all(math.isfinite(weight) for weight in weights):
        raise SpecError(f"--weights {', '.join(map(str, weights))}: give finite numbers")
    if not 0 < density <= 1:
        raise SpecError(f"--density {density:g}: not a share; give more than 0 and at most 1")
    if measured_by and not measure:
        raise SpecError("--group-column: belongs to --measure, whose folders have that column; name these, too")
    if out is not None:
        check_place(out)
    if measure and len(measure) != len(runs):
        raise SpecError(f"--measure names {len(measure)} folders for {len(runs)} adapters; give one for each, in order")


def _totals(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The card without its lines for single weights: a layer says enough, and adapters are small."""
    return [{key: pair[key] for key in ("labels", "total", "layers")} for pair in pairs]


def _finished(composed: Adapter, folders: Sequence[Path], found: Mapping[str, Any]) -> Adapter:
    """With a card that says where everything came from, what was expected and what was measured."""
    about = composed.card["composition"]
    sources = [
        {**source, "weights_digest": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}
        for source, folder in zip(about["sources"], folders, strict=True)
    ]
    evidence = {key: found[key] for key in ("interference", "measured") if found.get(key)}
    versions = {name: version(name) for name in ("kusabi", "torch", "transformers")}
    card = {**composed.card, "composition": {**about, "sources": sources, **evidence}, "versions": versions}
    return replace(composed, card=card)


def _write(out: Path, adapter: Adapter) -> str:
    """Write the folder; the digest that names the adapter."""
    with whole_folder(out) as aside:
        save_adapter(aside, adapter)
        (aside / "README.md").write_bytes(_readme(adapter).encode())
        digest = load_adapter(aside).card["digest"]
    return digest


def _readme(adapter: Adapter) -> str:
    about = adapter.card
    sources = "\n".join(f"- {s['weight']:g} x {s['label']} (`{s['digest']}`)" for s in about["composition"]["sources"])
    classes = ", ".join(about["classes"][:20]) + (" …" if len(about["classes"]) > 20 else "")
    return f"""---
library_name: kusabi
base_model: {about["backbone"]["source"]}
tags: [sparse-adapter, image-classification]
---

# Composed adapter for {about["data"]["name"]}

Composed by `{about["composition"]["how"]}` of

{sources}

{sum(map(len, adapter.parts)):,} entries on top of `{about["backbone"]["source"]}`, which stays as it is (digest
`{about["backbone"]["digest"]}`). Classes: {classes}. `{CARD}` says how the sources overlap, and what composing cost
where that was measured.

```console
kusabi predict FOLDER_OF_THIS_README picture.jpg
```
"""
