"""The interval of a share: how far off a count of right answers may be; and what few units do to any interval."""

import math
from statistics import NormalDist

from scipy.stats import t as student

LEVEL = 0.95
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def stretch(units: int) -> float:
    """What the deviations of ``units`` resampled units (draws, groups) are multiplied by; 0 for one, which has none.

    ``sqrt(d / (d - 1))`` is for the spread that a resample of d loses (J. Rao and C. Wu, JASA 83, 1988), Student's t
    over the normal quantile for how little so few say about their own spread.
    """
    return math.sqrt(units / (units - 1)) * t_quantile(units) / Z95 if units > 1 else 0.0


def z_quantile(level: float) -> float:
    """Of the normal distribution, two-sided."""
    return Z95 if level == LEVEL else NormalDist().inv_cdf((1 + level) / 2)


def t_quantile(units: float, level: float = LEVEL) -> float:
    """Of Student's t for the spread of ``units`` units, two-sided; infinite for one."""
    return float(student.ppf((1 + level) / 2, units - 1)) if units > 1 else math.inf


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """The score interval of ``successes / n``, 95 % by default; always within [0, 1] and around the share itself.

    ``successes`` may be a mean over seeds and ``n`` an effective number: neither need be whole. ``n = 0`` knows
    nothing: (0, 1).
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    share, width = successes / n, z**2 / n
    centre = (share + width / 2) / (1 + width)
    margin = math.sqrt(width * (share * (1 - share) + width / 4)) / (1 + width)
    # The bounds touch 0 and 1 exactly in theory; rounding must not push them past the share.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))
