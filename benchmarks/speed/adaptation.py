"""Whole adaptations: set-up, the frozen layers over all views, and the updates, beside PEFT's with as many updates."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.speed.clock import seconds
from benchmarks.speed.conditions import SHOTS, VIEWS, Conditions, upper_quarter
from benchmarks.speed.models import prompts_of
from benchmarks.speed.ours import Adaptation, adaptation, spec_of
from benchmarks.speed.peers import Peer, linears, peer
from benchmarks.speed.pictures import dataset_of, examples
from benchmarks.speed.record import Record
from kusabi.adapters.targets import plan
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.preprocessing import pixels
from kusabi.recipes.fit_support import fit_support
from kusabi.recipes.watch import silent
from kusabi.training.precision import fast_bf16, resolve

ALSO = (100, 1000)  # updates of which the totals are told, too


def ten_classes(conditions: Conditions) -> list[Record]:
    """Both peers at ten classes, everything in fp32."""
    return _measured(conditions, 10, "float32", {"lora": "adaptation_same_layers", "clip_lora": _CLIP_LORA + "10"})


def hundred_classes(conditions: Conditions) -> list[Record]:
    """CLIP-LoRA's setting at a hundred classes, everything in fp32."""
    return _measured(conditions, 100, "float32", {"clip_lora": _CLIP_LORA + "100"})


def automatic(conditions: Conditions) -> list[Record]:
    """Our automatic precision against PEFT's default, fp32."""
    if not fast_bf16(conditions.device):
        return [Record("adaptation_automatic", conditions.model, "10 classes", None, note="no bf16 units")]
    return _measured(conditions, 10, "auto", {"clip_lora": "adaptation_automatic"})


_CLIP_LORA = "adaptation_clip_lora_"


def _measured(conditions: Conditions, classes: int, precision: str, measures: Mapping[str, str]) -> list[Record]:
    backbone = conditions.load()
    layers = f"last-{upper_quarter(len(backbone.blocks['vision']))}"
    peers = {name: _ready(name, backbone, classes, layers, conditions) for name in measures}
    spec = spec_of(layers, steps=conditions.repeats + 1, batch=conditions.batch, precision=precision)
    ours = adaptation(backbone, classes, spec, conditions, {name: one.step for name, one in peers.items()})
    used = resolve(spec.training.precision, conditions.device)
    return [_record(measure, ours, peers[name], name, classes, conditions, used) for name, measure in measures.items()]


def _ready(name: str, backbone: Backbone, classes: int, layers: str, conditions: Conditions) -> Peer:
    support = examples(classes, -(-conditions.batch * 2 // classes))[: conditions.batch * 2]
    dataset = dataset_of(classes, support)
    shown = pixels([dataset.open(example) for example in support], backbone.preprocessing)
    labels = torch.tensor([example.label for example in support])
    names = linears(backbone, layers=layers)
    return peer(name, backbone, names, shown, labels, classes=classes, batch=conditions.batch)


def _record(
    measure: str, ours: Adaptation, other: Peer, name: str, classes: int, conditions: Conditions, precision: str
) -> Record:  # fmt: skip
    step, steps = ours.updates.peers[name], conditions.steps(classes)

    def whole(count: int) -> float:
        return other.setup + count * step.median

    totals = {str(count): whole(count) / ours.total(count) for count in (*ALSO, steps)}
    own: dict[str, Any] = {
        "total": ours.total(steps), "once": ours.once, "block": asdict(ours.block), "blocks": ours.blocks,
        "birth": ours.birth, "closing": ours.closing, "step": asdict(ours.updates.step),
    }  # fmt: skip
    return Record(
        measure, conditions.model, f"{classes} classes", totals[str(steps)], own,
        {"total": whole(steps), "setup": other.setup, "step": asdict(step)},
        {"steps": steps, "batch": conditions.batch, "shots": SHOTS, "views": VIEWS, "times faster by updates": totals,
         "times faster a step": step.median / ours.updates.step.median, "peer": name, "precision": precision,
         "peer trains": other.trained},
    )  # fmt: skip


def confirmed(conditions: Conditions) -> list[Record]:
    """A whole small adaptation, as ``kusabi adapt`` runs it, beside what its parts add up to."""
    backbone = conditions.load()
    classes, steps = 2, conditions.repeats + 1
    layers = f"last-{upper_quarter(len(backbone.blocks['vision']))}"
    spec = spec_of(layers, steps=steps, batch=conditions.batch)
    support = examples(classes, SHOTS)
    weights = plan(backbone.module, backbone.blocks, spec.adapter)
    whole = seconds(
        lambda: fit_support(
            backbone, dataset_of(classes, support), support, prompts_of(classes), weights, spec,
            precision="float32", watch=silent, run=None,
        ),
        backbone.device,
    )  # fmt: skip
    added = adaptation(backbone, classes, spec, conditions, {}).total(steps)
    return [Record("adaptation_confirmed", conditions.model, f"{classes} classes, {steps} updates", whole / added,
                   {"whole": whole, "parts": added})]  # fmt: skip
