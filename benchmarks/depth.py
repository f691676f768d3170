"""How deep a sparse delta should sit: the development tasks, and letters that the model has hardly seen the like of.

Small letters and clothes are 8 pixels a side, blurred letters hardly show a line. They were made after digits, a
headline task of 8 pixels a side, was lost to peers that adapt all layers. ``auto``, the default, takes all layers
where, of five classes or more, the upper half holds less than a quarter of the gradient energy. The quarter is from
these tasks. The bound of five classes is not: it was drawn after fabrics, a headline task of three classes, fell when
all layers were adapted. The tasks of three classes here allow it and do not ask for it, so fabrics is no untouched
judge of the default.
"""

import string
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from benchmarks.development import DEVELOPMENT
from benchmarks.letters import letters
from benchmarks.pool import Pool
from benchmarks.tasks import Task
from benchmarks.trials import Trials, main

SMALL, BLUR = 8, 4.0
FIRST, SECOND = string.ascii_uppercase[:10], string.ascii_uppercase[10:20]


def _small(picture: Any) -> Image.Image:
    return picture.resize((SMALL, SMALL), Image.Resampling.BOX)


def _blurred(picture: Any) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(BLUR))


def _small_letters(cache: Path) -> tuple[Pool, Pool]:
    learned, judged = letters(cache)
    return _some(learned, FIRST, _small), _some(judged, FIRST, _small)


def _blurred_letters(cache: Path) -> tuple[Pool, Pool]:
    learned, judged = letters(cache)
    return _some(learned, SECOND, _blurred), _some(judged, SECOND, _blurred)


def _three_letters(cache: Path) -> tuple[Pool, Pool]:
    learned, judged = letters(cache)
    return _some(learned, "DEF", _small), _some(judged, "DEF", _small)


def _three_clothes(cache: Path) -> tuple[Pool, Pool]:
    learned, judged = DEVELOPMENT["fashion"].pictures(cache)
    names = ("pullover", "coat", "shirt")
    sides = [{name: [_small(one) for one in pool[name]] for name in names} for pool in (learned, judged)]
    return sides[0], sides[1]


def _some(pool: Pool, which: str, change) -> Pool:
    return {f"letter {c}": [change(picture) for picture in pool[f"letter {c}"]] for c in which}


ALL = {"layers": "all", "budget": 35_389}

TRIALS = Trials(
    name="depth",
    about=__doc__ or "",
    rounds=(
        {
            "auto": {},
            "upper half": {"adapter": {"layers": "upper-half"}},
            "all layers": {"adapter": ALL},
            "all layers, full step size at once": {"adapter": ALL, "training": {"warmup_ratio": 0.0}},
        },
    ),
    shots=(4, 16),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}},
    lowest={"adapter": {"layers": "all"}},
    more_tasks={
        "small letters": Task("letters, 8 pixels a side", 84, _small_letters),
        "blurred letters": Task("letters, blurred", 84, _blurred_letters),
        "three small letters": Task("three letters, 8 pixels a side", 84, _three_letters),
        "three small clothes": Task("three kinds of clothes, 8 pixels a side", 84, _three_clothes),
    },
)  # fmt: skip

if __name__ == "__main__":
    main(TRIALS)
