"""How far names may be trusted beside few pictures.

Names may tell everything, and then one picture can only do harm; or nothing, and then it is all there is. A headline
task of the first kind, easy_vqa_shape, fell below zero-shot. The tasks that tell most by their names were made for
this of the pictures of the development tasks, clothes and bold letters cut out of coloured paper, and letters among
clothes, so that no headline task has to say how far is too far. Beside them stand the development and small tasks
or, with several pictures a class, the development tasks and icons whose names tell.

As before: the text counts as the pictures that it is worth, and the plain probe is half of the classifier. Now: as the
fourth power of them, and the probe has the share of the pictures. The power was chosen among 1, 2, 3, 4, 6, 8 and 12
by the classifier alone on these same tasks, with one picture a class. With several, cross-validation chooses; now up to
their number over that same power of what the text counts as, and nothing was chosen anew.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.cell import Cell, open_cell
from benchmarks.development import DEVELOPMENT
from benchmarks.few_classes import TASKS as SMALL
from benchmarks.named_icons import TASKS as ICONS
from benchmarks.pool import Pool, balanced, lay_out
from benchmarks.tasks import Task
from benchmarks.trials import QUERY, asked_of, read
from kusabi.recipes.environment import environment
from kusabi.spec_file import build
from kusabi.training.anchors import text_pictures
from kusabi.training.head import refit_like
from kusabi.training.learn import arrays_of, learn, rescale, starting
from kusabi.training.scale_choice import choose_scales

PAPERS = {
    "red": (220, 30, 40), "orange": (240, 140, 20), "green": (30, 150, 60), "blue": (30, 70, 220),
    "purple": (130, 50, 160), "black": (20, 20, 20), "yellow": (240, 220, 30), "pink": (250, 130, 180),
}  # fmt: skip
SIDE, PAPER_WHITE = 84, 235


def _cut_out(task: str, papers: Sequence[str], bold: int) -> Callable[[Path], tuple[Pool, Pool]]:
    """The outlines of a task's pictures, dealt to the papers in turn; ``bold`` times two pixels wider all around."""

    def pictures(cache: Path) -> tuple[Pool, Pool]:
        learned, judged = (_in_turn(pool) for pool in DEVELOPMENT[task].pictures(cache))
        return _by_paper(learned), _by_paper(judged)

    def _by_paper(shown: Sequence[Image.Image]) -> Pool:
        return {
            paper: [_on(picture, PAPERS[paper], bold) for picture in shown[at :: len(papers)]]
            for at, paper in enumerate(papers)
        }

    return pictures


def _on(picture: Image.Image, paper: tuple[int, int, int], bold: int) -> Image.Image:
    grey = np.asarray(ImageOps.grayscale(picture))
    if grey[[0, 0, -1, -1], [0, -1, 0, -1]].mean() < 128:
        grey = 255 - grey
    outline = Image.fromarray(np.where(grey < PAPER_WHITE, 255, 0).astype(np.uint8)).resize((SIDE, SIDE))
    for _ in range(bold):
        outline = outline.filter(ImageFilter.MaxFilter(5))
    shown = Image.new("RGB", outline.size, "white")
    shown.paste(paper, mask=outline)
    return shown


def _letters_among_clothes(cache: Path) -> tuple[Pool, Pool]:
    letters, clothes = (
        [_in_turn(pool) for pool in DEVELOPMENT[task].pictures(cache)] for task in ("letters", "fashion")
    )
    learned, judged = ({"letter": one, "clothing": other} for one, other in zip(letters, clothes, strict=True))
    return learned, judged


def _in_turn(pool: Pool) -> list[Image.Image]:
    """Pictures of all classes, one of each after another."""
    longest = max(map(len, pool.values()))
    return [picture for place in range(longest) for of in pool.values() for picture in of[place : place + 1]]  # type: ignore[misc]


TASKS = {
    "letters among clothes": Task("letters and clothes", SIDE, _letters_among_clothes),
    "red and green clothes": Task("clothes, cut out", SIDE, _cut_out("fashion", ("red", "green"), 0)),
    "clothes of six colours": Task("clothes, cut out", SIDE, _cut_out("fashion", tuple(PAPERS)[:6], 0)),
    "red and pink letters": Task("letters, cut out", SIDE, _cut_out("letters", ("red", "pink"), 2)),
    "letters of four colours": Task(
        "letters, cut out", SIDE, _cut_out("letters", ("red", "yellow", "black", "pink"), 2)
    ),
}
RESULTS = Path("benchmarks/results/telling_names.jsonl")
SEEDS: Mapping[int, Sequence[int]] = {1: (0, 1), 4: (0,)}
"""Pictures a class -> draws of them."""
ALL: Mapping[str, Task] = {**TASKS, **DEVELOPMENT, **SMALL}
TOLD: Mapping[str, Task] = {**TASKS, "icon families": ICONS["icon families"]}
"""What is measured with several pictures a class: where names tell little, nothing is another than before."""
RULES, SIDES = ("as before", "now"), {"adapter": None, "classifier alone": 0.0}
WAYS = tuple(f"{side}, {rule}" for side, rule in product(SIDES, RULES))
LEGEND = (
    "Accuracy in per cent, mean over two seeds with one picture a class, of one seed with four. Generated with "
    "`--table` from the `.jsonl`."
)


def main() -> None:
    """Measure what is missing, or write the table."""
    if (asked := asked_of(RESULTS, __doc__ or "", LEGEND, table)) is None:
        return
    done = {(line["task"], _shots(line), line["seed"]) for line in read(RESULTS)}
    for shots, seeds in SEEDS.items():
        for seed, (name, task) in product(seeds, tasks_of(shots).items()):
            if (name, shots, seed) in done:
                continue
            folder = asked.cache / "pictures" / f"development-{name}"
            learned, judged = task.pictures(asked.cache)
            lay_out(learned, balanced(judged, QUERY), folder)
            found = measured(folder, task.input_size, shots, seed)
            line = {"task": name, "shots": shots, "seed": seed, "accuracy": found}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"environment": environment()}) + "\n")


def tasks_of(shots: int) -> Mapping[str, Task]:
    """What is measured with so many pictures a class."""
    return ALL if shots == 1 else TOLD


def _shots(line: Mapping[str, Any]) -> int:
    """Of a line; the first ones were all of one picture a class."""
    return line.get("shots", 1)


def measured(folder: Path, input_size: int, shots: int, seed: int) -> dict[str, float]:
    """Accuracies of all ways, of zero-shot and of the peers on frozen features."""
    spec = build({"seed": seed, "backbone": {"input_size": input_size}, "data": {"shots": shots}})
    cell = open_cell(folder, spec)
    setting, found = cell.setting(spec), cell.peers()
    for rule in RULES:
        with ExitStack() as patched:
            for name, earlier in BEFORE.items() if rule == "as before" else ():
                patched.enter_context(patch(f"kusabi.training.head.{name}", earlier))
            start = starting(setting, cell.views)
        if rule == "as before" and start.head is not None and shots == 1:
            head = replace(start.head, probe_share=0.5)
            start = replace(start, head=refit_like(head, *_frozen(cell)))
        learned = learn(setting, cell.views, start=start)
        kept = choose_scales(setting, cell.views).alpha
        for side, alpha in SIDES.items():
            one = replace(learned, parts=copy.deepcopy(learned.parts), prototypes=copy.deepcopy(learned.prototypes))
            rescale(setting, cell.views, one, kept if alpha is None else alpha, 1.0)
            found[f"{side}, {rule}"] = cell.accuracy(one)
    return found


def _before(*support: Any) -> float:
    return 1 / (1 + text_pictures(*support))


BEFORE = {"means_share": _before, "most_of_pictures": lambda *support: 1.0}


def _frozen(cell: Cell) -> tuple[Any, ...]:
    features, labels, _ = arrays_of(cell.views)
    return features, labels, cell.text.double().cpu().numpy()


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracy per task and number of pictures as Markdown; last the mean of each number's columns."""
    columns = ("zero_shot", "linear_probe", *WAYS)
    rows = [f"| pictures a class | task | {' | '.join(columns).replace('_', ' ')} |", "| ---: | --- |" + " ---: |" * 6]
    for shots in SEEDS:
        found = []
        for task in tasks_of(shots):
            own = [line["accuracy"] for line in lines if (line["task"], _shots(line)) == (task, shots)]
            found.append([float(np.mean([one[way] for one in own])) if own else math.nan for way in columns])
            rows.append(f"| {shots} | {task} | {' | '.join(f'{100 * mean:.1f}' for mean in found[-1])} |")
        rows.append(f"| {shots} | mean | {' | '.join(f'{100 * mean:.1f}' for mean in np.mean(found, axis=0))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
