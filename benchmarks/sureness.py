"""Whether a classifier that is no surer than so many pictures allow gives better probabilities.

What is compared is the log-loss in nats on pictures held out from the development tasks and from the small tasks made
of them: of the default adapter and of the classifier alone, as fitted and tempered. Accuracy is the same: a
temperature changes no ranking. The fault was noticed in the log-loss of a headline task; the rule was chosen here.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional as F

from benchmarks.cell import Cell, open_cell
from benchmarks.development import DEVELOPMENT
from benchmarks.few_classes import TASKS as SMALL
from benchmarks.pool import balanced, lay_out
from benchmarks.trials import QUERY, asked_of, read
from kusabi.recipes.environment import environment
from kusabi.spec_file import build
from kusabi.training.learn import Learned, learn, rescale
from kusabi.training.scale_choice import choose_scales

RESULTS = Path("benchmarks/results/sureness.jsonl")
TASKS = {**DEVELOPMENT, **SMALL}
SHOTS, SEEDS = (1, 4, 16), (0, 1)
LEGEND = "Log-loss in nats, mean over seeds. Generated with `--table` from the `.jsonl`."
WAYS = {
    f"{side}, {sure}": (alpha, temper)
    for side, alpha in (("adapter", None), ("classifier alone", 0.0))
    for sure, temper in (("as fitted", False), ("tempered", True))
}


def main() -> None:
    """Measure what is missing, or write the table."""
    if (asked := asked_of(RESULTS, __doc__ or "", LEGEND, table)) is None:
        return
    done = {(line["task"], line["shots"], line["seed"]) for line in read(RESULTS)}
    for name, shots, seed in product(TASKS, SHOTS, SEEDS):
        if (name, shots, seed) not in done:
            folder = asked.cache / "pictures" / f"development-{name}"
            learned, judged = TASKS[name].pictures(asked.cache)
            lay_out(learned, balanced(judged, QUERY), folder)
            line = {"task": name, "shots": shots, "seed": seed, **measured(folder, TASKS[name].input_size, shots, seed)}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"environment": environment()}) + "\n")


def measured(folder: Path, input_size: int, shots: int, seed: int) -> dict[str, Any]:
    """Accuracies and log-losses of all ways, from one training."""
    spec = build({"seed": seed, "backbone": {"input_size": input_size}, "data": {"shots": shots}})
    cell = open_cell(folder, spec)
    setting = cell.setting(spec)
    learned = learn(setting, cell.views)
    kept = choose_scales(setting, cell.views).alpha
    ways = {}
    for way, (alpha, temper) in WAYS.items():
        safety = spec.safety.model_copy(update={"temper": temper})
        own = replace(setting, spec=spec.model_copy(update={"safety": safety}))
        one = replace(learned, parts=copy.deepcopy(learned.parts), prototypes=copy.deepcopy(learned.prototypes))
        rescale(own, cell.views, one, kept if alpha is None else alpha, 1.0)
        ways[way] = _judged(cell, one)
    return {"ways": ways, "spec": spec.digest, "backbone": cell.question.backbone.card()["digest"]}


def _judged(cell: Cell, learned: Learned) -> dict[str, float]:
    logits, labels = cell.logits(learned).double(), cell.query.labels
    accuracy = float((logits.argmax(1) == labels).double().mean())
    return {"accuracy": accuracy, "log_loss": float(F.cross_entropy(logits, labels))}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean log-loss per task and shots as Markdown."""
    rows = [f"| task, shots | {' | '.join(WAYS)} |", "| --- |" + " ---: |" * len(WAYS)]
    found = []
    for shots, task in product(SHOTS, TASKS):
        own = [line["ways"] for line in lines if (line["shots"], line["task"]) == (shots, task)]
        found.append([float(np.mean([ways[way]["log_loss"] for ways in own])) if own else math.nan for way in WAYS])
        rows.append(f"| {task}, {shots} | {' | '.join(f'{mean:.2f}' for mean in found[-1])} |")
    return "\n".join([*rows, f"| mean | {' | '.join(f'{mean:.2f}' for mean in np.mean(found, axis=0))} |"])


if __name__ == "__main__":
    main()
