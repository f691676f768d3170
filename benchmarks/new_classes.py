"""Which features should answer for classes that nobody labelled: the adapted ones, the frozen ones, or some between.

Half the classes of each task are trained on, pictures of all are asked, as in stage ``new`` of the accuracy benchmark.
Base is the same in all ways: a way says what the texts of new classes are compared with. Asked after the first seed of
digits, where the default fell below zero-shot on new classes: frozen features would bar that. On the development tasks
they cost more than they save, and the adapted ones stayed. Icons whose names tell (``benchmarks/named_icons.py``) were
added when the first seed of icons was in, where the default fell on new classes, too; half as large values with them.
Written down when the first seed of most of this had been seen, not the second: another way than the adapted features is
taken if, by the default classifier, it is ahead of them by half a point in the mean of all columns. Half the values
are. By the text classifier, measured last, whole ones are best: an adapter without a classifier of its own keeps them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.harder import base_to_new, extras
from benchmarks.cell import Cell, cell_of
from benchmarks.development import DEVELOPMENT
from benchmarks.named_icons import TASKS as NAMED
from benchmarks.peers.answers import Answers
from benchmarks.pool import balanced, lay_out
from benchmarks.trials import QUERY, asked_of, read
from kusabi.adapters.attach import attached
from kusabi.backbones.prefix import finish
from kusabi.recipes.environment import environment
from kusabi.recipes.new_classes import joined
from kusabi.spec_file import build
from kusabi.training.learn import Learned, learn, rescale
from kusabi.training.scale_choice import choose_scales
from kusabi.training.texts import class_texts

RESULTS = Path("benchmarks/results/new_classes.jsonl")
ALL = {**DEVELOPMENT, **NAMED}
HEADS, WAYS, SHOTS, SEEDS = ("prototypes", "text"), ("adapted", "half", "both", "frozen"), (4, 16), (0, 1)
FIELDS = ("harmonic_mean", "base", "new", "all")
LEGEND = (
    "Per cent, mean over seeds; half: the features that values half as large give; both: the mean of the logits of "
    "adapted and frozen. Base: pictures of trained classes among these. New: pictures of the others among those. All: "
    "everything among all classes. Generated with `--table` from the `.jsonl`."
)


def main() -> None:
    """Measure what is missing, or write the table."""
    if (asked := asked_of(RESULTS, __doc__ or "", LEGEND, table)) is None:
        return
    done = {(line["task"], line["shots"], line["seed"], line["head"]) for line in read(RESULTS)}
    for head, name, shots, seed in product(HEADS, ALL, SHOTS, SEEDS):
        if (name, shots, seed, head) not in done:
            line = {"task": name, "shots": shots, "seed": seed, "head": head,
                    **measured(drawn(name, asked.cache), ALL[name].input_size, shots, seed, head)}  # fmt: skip
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"environment": environment()}) + "\n")


@cache
def drawn(name: str, place: Path) -> Path:
    """The folder of a task's pictures, drawn once by every process."""
    folder = place / "pictures" / f"development-{name}"
    learned, judged = ALL[name].pictures(place)
    lay_out(learned, balanced(judged, QUERY), folder)
    return folder


def measured(folder: Path, input_size: int, shots: int, seed: int, head: str) -> dict[str, Any]:
    """All fields of all ways, from one training."""
    spec = build(
        {"seed": seed, "backbone": {"input_size": input_size}, "data": {"shots": shots}, "adapter": {"head": head}}
    )
    question, new_prompts = base_to_new(folder, spec)
    cell = cell_of(question, spec)
    setting = cell.setting(spec)
    learned = learn(setting, cell.views)
    scales = choose_scales(setting, cell.views)
    rescale(setting, cell.views, learned, scales.alpha, scales.head_alpha)
    ways = {way: _judged(cell, found) for way, found in answers(cell, learned, new_prompts).items()}
    return {"ways": ways, "spec": spec.digest, "backbone": question.backbone.card()["digest"]}


@torch.no_grad()
def answers(cell: Cell, learned: Learned, new_prompts: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Probabilities ``(m, C + N)`` of every way."""
    backbone, query = cell.question.backbone, cell.query
    text = class_texts(backbone, [*cell.question.prompts, *new_prompts])
    whole = _features(cell, learned)
    own = _array(learned.prototypes(whole).double().softmax(dim=1))
    for part in learned.parts:
        part.rescale(0.5)
    sides = (whole, _features(cell, learned), query.features)
    adapted, half, frozen = (backbone.scale * side @ text.T for side in sides)
    by_way = dict(zip(WAYS, (adapted, half, (adapted + frozen) / 2, frozen), strict=True))
    return {way: joined(own, _array(logits.double())) for way, logits in by_way.items()}


def _features(cell: Cell, learned: Learned) -> Tensor:
    with attached(cell.question.backbone.module, *learned.parts):
        blocks = [finish(cell.question.backbone, states, cell.query.layer) for states in cell.query.states.split(50)]
    return torch.cat(blocks)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _judged(cell: Cell, chances: np.ndarray) -> dict[str, float]:
    labels = cell.query.labels.cpu().numpy()
    fields = extras("base_to_new", Answers(chances, 0, 0, 0.0), labels, len(cell.question.prompts))
    return {**fields, "all": float((chances.argmax(axis=1) == labels).mean())}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Means per classifier and way as Markdown, best harmonic mean first."""
    cells = list(product(ALL, SHOTS))
    head = ["classifier", "texts compared with", *FIELDS, *(f"{task}, {shots}" for task, shots in cells)]
    rows = [f"| {' | '.join(head).replace('_', ' ')} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    found = []
    for name, way in product(HEADS, WAYS):
        of = {
            at: [line["ways"][way] for line in lines if (line["head"], line["task"], line["shots"]) == (name, *at)]
            for at in cells
        }
        means = [float(np.mean([_mean(own, field) for own in of.values()])) for field in FIELDS]
        found.append((name, way, [*means, *(_mean(of[at], "harmonic_mean") for at in cells)]))
    for name, way, values in sorted(found, key=lambda row: -row[2][0]):
        rows.append(f"| {name} | {way} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    return "\n".join(rows)


def _mean(own: Sequence[Mapping[str, float]], field: str) -> float:
    return float(np.mean([one[field] for one in own])) if own else math.nan


if __name__ == "__main__":
    main()
