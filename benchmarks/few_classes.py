"""Whether the depth of an adapter should follow the pictures with two to four classes, too.

The bound of five classes (``benchmarks/depth.py``) was drawn after a headline task of three classes fell. These tasks
of few classes were made later, to judge it, and the rule was written down before they were measured: the bound goes if
``auto`` without it is ahead of the upper half in the mean of all columns, and behind by more than a point in the mean
of no task; else it stays.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from benchmarks.depth import TRIALS as DEPTH
from benchmarks.depth import _blurred, _small
from benchmarks.development import DEVELOPMENT
from benchmarks.pool import Pool
from benchmarks.tasks import Task
from benchmarks.trials import Trials, main

Change = Callable[[Any], Image.Image]


def _of(task: str, names: Sequence[str], change: Change) -> Task:
    """A few classes of a development task, every picture changed."""

    def pictures(cache: Path) -> tuple[Pool, Pool]:
        learned, judged = (
            {name: [change(picture) for picture in pool[name]] for name in names}
            for pool in DEVELOPMENT[task].pictures(cache)
        )
        return learned, judged

    return Task(f"{task}, {len(names)} classes", 84, pictures)


def _letters(which: str, change: Change) -> Task:
    return _of("letters", [f"letter {c}" for c in which], change)


def _same(picture: Image.Image) -> Image.Image:
    return picture


TASKS = {
    "two blurred letters": _letters("OQ", _blurred),
    "two small clothes": _of("fashion", ("t-shirt", "shirt"), _small),
    "three small letters": _letters("IJL", _small),
    "three small shoes": _of("fashion", ("sandal", "sneaker", "ankle boot"), _small),
    "four blurred letters": _letters("HMNW", _blurred),
    "four clothes": _of("fashion", ("t-shirt", "dress", "coat", "shirt"), _same),
}

TRIALS = Trials(
    name="few_classes",
    about=__doc__ or "",
    rounds=({"auto without the bound": {}, "upper half": {"adapter": {"layers": "upper-half"}}},),
    shots=(4, 16),
    seeds=(0, 1, 2),
    base=DEPTH.base,
    lowest=DEPTH.lowest,
    only=TASKS,
)

if __name__ == "__main__":
    with patch("kusabi.training.depth_choice.FEWEST", 2):
        main(TRIALS, sys.argv[1:])
