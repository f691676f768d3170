"""Whether the depth of an adapter should follow the pictures on fabrics, judged on their labelled side alone.

``benchmarks/few_classes.py`` says that the bound of five classes should go; what had drawn it was a fall on fabrics,
seen on query pictures. Here one half of the pictures that fabrics are learned from judges the other, so that no query
picture has a say. Whatever default follows makes fabrics a development task, and no judge of it.
"""

import sys
from pathlib import Path
from unittest.mock import patch

from benchmarks.depth import TRIALS as DEPTH
from benchmarks.few_classes import TRIALS as FEW_CLASSES
from benchmarks.pool import Pool, halves
from benchmarks.tasks import Task
from benchmarks.textile import textile
from benchmarks.trials import Trials, main

SIZE = 224  # as in the main job


def _labelled(cache: Path) -> tuple[Pool, Pool]:
    """Halves of what is learned from."""
    return halves(textile(cache)[0])


TRIALS = Trials(
    name="fabrics_depth",
    about=__doc__ or "",
    rounds=FEW_CLASSES.rounds,
    shots=(4, 16),
    seeds=(0, 1, 2),
    base=DEPTH.base,
    lowest=DEPTH.lowest,
    only={
        "fabrics, labelled side": Task("conformal-clip-data 0.1.4 (PyPI, MIT), what is learned from", SIZE, _labelled)
    },
)

if __name__ == "__main__":
    with patch("kusabi.training.depth_choice.FEWEST", 2):
        main(TRIALS, sys.argv[1:])
