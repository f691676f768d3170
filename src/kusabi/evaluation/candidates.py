"""Which of several models to take, from what each answered on the same pictures.

The rule: the highest accuracy is the best; every candidate whose paired 95 % interval against it includes zero is level
with it, and among these the one with the fewest parameters is named. Speed is compared only where the timings of two
candidates do not overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kusabi.evaluation.clusters import Groups
from kusabi.evaluation.comparison import compare


@dataclass(frozen=True)
class Candidate:
    """One model: its ``name``, which query pictures it answered ``right`` ``(n,)``, and what it costs.

    ``speeds`` are the lowest and the highest measured number of pictures a second. ``above_chance`` says whether the
    interval of its accuracy lies above guessing.
    """

    name: str
    right: NDArray[np.bool_]
    parameters: int
    speeds: tuple[float, float]
    above_chance: bool


def choose(candidates: Sequence[Candidate], groups: Groups | None = None) -> dict[str, Any]:
    """The best candidate, those level with it, and the smallest and the clearly faster ones of these.

    The order of the candidates changes nothing: of equal accuracies the one with fewer parameters, then the first name.

    Args:
        candidates: At least one.
        groups: Of the query pictures (``clusters.py``); each is one by itself when absent.

    Returns:
        Plain data: ``best``, ``action`` (``take``, or ``none`` where not even the best is above guessing), ``against``
        (best minus every other, paired), ``level`` (names), ``smallest`` (a name among the best and the level ones),
        ``faster`` (names of level ones that are faster beyond the spread of the timings).
    """
    ordered = sorted(candidates, key=lambda one: (-int(one.right.sum()), one.parameters, one.name))
    best, others = ordered[0], ordered[1:]
    against = {other.name: compare(best.right, other.right, groups=groups) for other in others}
    level = [other for other in others if against[other.name]["interval"][0] <= 0]
    return {
        "action": "take" if best.above_chance else "none",
        "best": best.name,
        "against": against,
        "level": [other.name for other in level],
        "smallest": min([best, *level], key=lambda one: one.parameters).name,
        "faster": [other.name for other in level if other.speeds[0] > best.speeds[1]],
    }
