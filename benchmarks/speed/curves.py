"""How cost grows with classes, shots, layers, density and batch: a few points each, ours beside CLIP-LoRA's setting."""

from dataclasses import asdict, replace
from typing import Any

from benchmarks.speed.clock import alternated
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.ours import adaptation, encoded, setting_of, spec_of, updates
from benchmarks.speed.record import Record
from benchmarks.speed.steps import decoded, ready

LAYERS, DENSITIES, BATCHES, CLASSES = (1, 3, 6), (0.001, 0.005, 0.02), (4, 16, 32), (2, 10, 50)


def curves(conditions: Conditions) -> list[Record]:
    """Seconds of an update, and of a whole adaptation where it depends on pictures and classes."""
    conditions = replace(conditions, quick=True)  # three updates a point
    points: list[tuple[str, Any, str, int, dict[str, Any]]] = [
        *(("layers", count, f"last-{count}", conditions.batch, {}) for count in LAYERS),
        *(("density", share, "last-3", conditions.batch, {"density": share}) for share in DENSITIES),
        *(("batch", size, "last-3", size, {}) for size in BATCHES),
    ]
    return [_update(conditions, *point) for point in points] + _by_classes(conditions) + _peers_by_batch(conditions)


def _update(conditions: Conditions, axis: str, at: Any, layers: str, batch: int, adapter: dict[str, Any]) -> Record:
    backbone = conditions.load()
    spec = spec_of(layers, steps=conditions.repeats + 1, batch=batch, support_rule="random", **adapter)
    setting = setting_of(backbone, 10, spec)
    taken = updates(setting, encoded(setting, max(8, batch // 4))[0], None, {})
    return Record(f"curve_{axis}", conditions.model, str(at), None, asdict(taken.step))


def _by_classes(conditions: Conditions) -> list[Record]:
    """Whole adaptations; 16 shots, so that pictures grow along."""
    records = []
    for classes in CLASSES:
        spec = spec_of("last-3", steps=conditions.repeats + 1, batch=conditions.batch)
        found = adaptation(conditions.load(), classes, spec, conditions, {})
        steps = conditions.steps(classes)
        parts = {"once": found.once, "prefix": found.block.median * found.blocks, "birth": found.birth,
                 "updates": steps * found.updates.step.median, "closing": found.closing}  # fmt: skip
        records.append(
            Record("curve_classes", conditions.model, str(classes), None, {"median": found.total(steps), **parts})
        )
    return records


def _peers_by_batch(conditions: Conditions) -> list[Record]:
    records = []
    for batch in BATCHES:
        sized = replace(conditions, batch=batch)
        backbone = sized.load()
        other = ready("clip_lora", backbone, sized, *decoded(backbone, sized), "all")
        found = alternated({"peer": other.step}, conditions.device, repeats=sized.repeats)["peer"]
        records.append(Record("curve_batch_clip_lora", conditions.model, str(batch), None, {}, asdict(found)))
    return records
