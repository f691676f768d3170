"""Pictures that come in groups (lots, patients, cameras): their groups, not they, are independent evidence.

Where pictures of a group are alike, a hundred pictures of five patients say little more than five pictures do. So
groups are what is resampled and counted, and few of them widen an interval by Student's t. Source of the interval of a
share: E. Korn and B. Graubard, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", Survey Methodology 24 (1998), with Wilson's interval at their effective number of pictures;
the number where nothing varies: L. Kish, "Survey Sampling" (1965), section 8.2.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from kusabi.evaluation.intervals import LEVEL, t_quantile, wilson, z_quantile

ROUNDING = 1e-9  # of a share that is a mean over seeds

Groups = NDArray[np.int64]
"""The group of every picture, ``(n,)``, counted from 0; a picture without one is a group by itself."""


def numbered(names: Sequence[Hashable]) -> Groups | None:
    """Groups by their first picture; None where no two pictures share one, and each picture speaks for itself."""
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    return groups if len(numbers) < len(groups) else None


def among(groups: Groups | None, chosen: NDArray[np.bool_]) -> Groups | None:
    """The groups of some of the pictures."""
    return None if groups is None else numbered(groups[chosen].tolist())


def summed(values: NDArray, groups: Groups) -> NDArray:
    """Values of pictures, ``(..., n)``, added up within each group: ``(..., G)``."""
    found = np.zeros((int(groups.max()) + 1, *values.shape[:-1]), dtype=values.dtype)
    np.add.at(found, groups, np.moveaxis(values, -1, 0))
    return np.moveaxis(found, 0, -1)


def effective(groups: Groups) -> float:
    """Of how many groups of equal size these are worth: all of them, or fewer where some hold most pictures."""
    sizes = np.bincount(groups)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def share_interval(hits: float, right: NDArray, groups: Groups | None, level: float = LEVEL) -> list[float]:
    """The interval of a share of right answers.

    Args:
        hits: Right answers; a mean over seeds that judged different pictures need not be the sum of ``right``.
        right: What each picture adds to it, 0 to 1, ``(n,)``.
        groups: Of the pictures; None where each speaks for itself.
        level: Of the interval.
    """
    n = len(right)
    if groups is None:
        return list(wilson(hits, n, z_quantile(level)))
    count = int(groups.max()) + 1
    if count == 1:
        return [0.0, 1.0]
    sizes, mean = np.bincount(groups), right.mean()
    rest = summed(right.astype(np.float64), groups) - mean * sizes
    variance = count / (count - 1) * float((rest**2).sum()) / n**2
    worth = min(mean * (1 - mean) / variance, n) if variance > 0 else n
    if min(mean, 1 - mean) < ROUNDING:
        worth = effective(groups)
    share = hits / n
    low, high = wilson(share * worth, worth, t_quantile(count, level))
    return [min(low, share), max(high, share)]
