"""The interval of a share: how far off a count of right answers may be."""

import math

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of ``successes / n``, 95 % by default; always within [0, 1] and around the share itself.

    ``successes`` may be a mean over seeds and need not be whole. ``n = 0`` knows nothing: (0, 1).
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    share, width = successes / n, z**2 / n
    centre = (share + width / 2) / (1 + width)
    margin = math.sqrt(width * (share * (1 - share) + width / 4)) / (1 + width)
    # The bounds touch 0 and 1 exactly in theory; rounding must not push them past the share.
    return max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share))
