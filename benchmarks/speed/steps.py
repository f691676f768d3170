"""One update at equal placement without a prefix cache, and of every method on its own: pixels in, values changed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from benchmarks.speed.clock import alternated
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.ours import encoded, setting_of, spec_of, updates, without_cache
from benchmarks.speed.peers import Peer, linears, peer
from benchmarks.speed.pictures import dataset_of, examples
from benchmarks.speed.record import Record
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.prefix import enter
from kusabi.backbones.preprocessing import pixels

CLASSES = 10
KINDS = {"step_entries": "entry", "step_rows": "row", "step_columns": "column"}


def equal_placement(conditions: Conditions, layers: str = "all", kinds: Sequence[str] = tuple(KINDS)) -> list[Record]:
    """Ours by entries, rows and columns, each in turn with LoRA on the same linear maps and as many trained numbers."""
    backbone, records = conditions.load(), []
    shown, labels = decoded(backbone, conditions)
    other = ready("lora", backbone, conditions, shown, labels, layers)
    for measure in kinds:
        spec = spec_of(
            layers, steps=conditions.repeats + 1, batch=conditions.batch, budget=other.trained,
            granularity=KINDS[measure], support_rule="random", precision=conditions.precision,
        )  # fmt: skip
        setting = setting_of(backbone, CLASSES, spec)
        views, _ = encoded(setting, conditions.batch)
        first = setting.plan.first_layer["vision"]

        def run(batch: Tensor, first: int = first) -> Tensor:
            return enter(backbone, batch.to(backbone.device), first)

        taken = updates(setting, without_cache(views, shown, run), None, {"lora": other.step})
        records.append(
            Record(
                measure, conditions.model, f"{layers} layers, batch {conditions.batch}",
                taken.step.median / taken.peers["lora"].median, asdict(taken.step), asdict(taken.peers["lora"]),
                {"trained": setting.plan.entries, "peer trains": other.trained, "precision": conditions.precision},
            )
        )  # fmt: skip
    return records


def every_method(conditions: Conditions) -> list[Record]:
    """Every peer's update in turn, on all linear maps of the vision tower where the method lets one choose."""
    backbone = conditions.load()
    shown, labels = decoded(backbone, conditions)
    peers = {name: ready(name, backbone, conditions, shown, labels, "all")
             for name in ("lora", "shira", "super_tuning", "clip_lora", "full")}  # fmt: skip
    steps: dict[str, Callable[[], object]] = {name: one.step for name, one in peers.items()}
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # SHiRA's; as torch does by default
        found = alternated(steps, conditions.device, repeats=conditions.repeats)
    return [
        Record("step", conditions.model, name, None, {}, asdict(taken), {"peer trains": peers[name].trained})
        for name, taken in found.items()
    ]


def decoded(backbone: Backbone, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Pixels ``(n, 3, S, S)`` of as many pictures as views are measured, and their labels."""
    count = conditions.batch
    support = examples(CLASSES, -(-count // CLASSES))[:count]
    dataset = dataset_of(CLASSES, support)
    shown = pixels([dataset.open(example) for example in support], backbone.preprocessing)
    many = shown.repeat(4, 1, 1, 1)  # ours has four views of each
    return many, torch.tensor([example.label for example in support]).repeat(4)


def ready(
    name: str, backbone: Backbone, conditions: Conditions, shown: Tensor, labels: Tensor, layers: str
) -> Peer:  # fmt: skip
    """A peer's training on these pixels."""
    return peer(
        name, backbone, linears(backbone, layers=layers), shown, labels, classes=CLASSES, batch=conditions.batch,
        precision=conditions.precision,
    )  # fmt: skip
