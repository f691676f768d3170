"""An interval that stays honest where two sides disagree about few pictures, or all disagreements go one way.

Resampling pictures cannot show what was not seen: three gained and none lost resample to gains alone, as though losses
were impossible. Two intervals that know better are joined to it. One lets the shares of gained and of lost pictures be
what Wilson's intervals allow, both at once (G. Zou and A. Donner, "Construction of confidence limits about effect
measures", Statistics in Medicine 27 (2008)). One takes the disputed pictures as throws of a coin, as McNemar's exact
test does (C. Clopper and E. Pearson, Biometrika 26 (1934)): with it, zero is outside only where that test says so.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from kusabi.evaluation.clusters import Groups, share_interval
from kusabi.evaluation.intervals import LEVEL, wilson, z_quantile

FEW_ONE_WAY = 5
FEW_IN_ALL = 20
"""With as many disputed pictures each way, or as many in all, resampling covers as often as it says."""


def widened(
    interval: Sequence[float], parts: NDArray[np.float64], level: float = LEVEL, groups: Groups | None = None
) -> list[float]:
    """The interval, as it is where enough pictures are disputed, else wide enough for so few.

    Args:
        interval: Of the sum of ``parts``, from resampled pictures.
        parts: What each of the ``n`` pictures adds to the difference of two shares: zero where it is not disputed.
        level: Of the interval.
        groups: Of the pictures (``clusters.py``): where given, shares of gained and lost pictures are what these allow,
            however many are disputed.
    """
    if groups is not None:
        low, high = _low_of_groups(parts, groups, level), -_low_of_groups(-parts, groups, level)
        return [max(-1.0, min(interval[0], low)), min(1.0, max(interval[1], high))]
    ahead, behind = parts[parts > 0], -parts[parts < 0]
    if min(len(ahead), len(behind)) >= FEW_ONE_WAY or len(ahead) + len(behind) >= FEW_IN_ALL:
        return list(interval)
    low, high = _low(ahead, behind, len(parts), level), -_low(behind, ahead, len(parts), level)
    return [max(-1.0, min(interval[0], low)), min(1.0, max(interval[1], high))]


def _low(ahead: NDArray[np.float64], behind: NDArray[np.float64], n: int, level: float) -> float:
    """The lower of both lower ends; the upper one is that of the other side, turned."""
    z, gained, lost = z_quantile(level), float(ahead.sum()), float(behind.sum())
    away = math.hypot(gained - wilson(gained * n, n, z)[0], wilson(lost * n, n, z)[1] - lost)
    share = float(beta.ppf((1 - level) / 2, len(ahead), len(behind) + 1)) if len(ahead) else 0.0
    return min(gained - lost - away, (2 * share - 1) * (gained + lost))


def _low_of_groups(parts: NDArray[np.float64], groups: Groups, level: float) -> float:
    """The lower end by shares of gained and lost pictures alone; how often groups differ, a coin does not say."""
    n = len(parts)
    gained, lost = np.maximum(parts, 0) * n, np.maximum(-parts, 0) * n
    low, _ = share_interval(gained.sum(), gained, groups, level)
    _, high = share_interval(lost.sum(), lost, groups, level)
    return float(parts.sum()) - math.hypot(gained.mean() - low, high - lost.mean())
