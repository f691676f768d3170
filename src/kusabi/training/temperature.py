"""How sure a classifier may be that answers the labelled pictures it was fitted to, on features that were, too.

On these pictures it makes no mistake, whatever it does on others, and logits without bound would be the best. So their
labels are believed no more than Laplace's rule of succession allows: after n of n were right, the next one is with
probability ``(n + 1) / (n + 2)``. J. Platt softened the targets of his fit in the same way ("Probabilistic outputs for
support vector machines" (1999), section 2.2); one temperature for all classes is that of C. Guo et al. (arXiv
1706.04599, section 4.2). What it buys is measured in ``benchmarks/sureness.py``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax

Rows = NDArray[np.float64]

LEAST = 1e-3


def sureness(logits: Rows, labels: NDArray[np.int64], pictures: int) -> float:
    """Factor of the logits, at most 1, of least cross-entropy against softened labels; no ranking depends on it.

    Args:
        logits: Of all views, ``(n, C)``.
        labels: Class of each, ``(n,)``.
        pictures: How many pictures these are views of.
    """
    classes = logits.shape[1]
    doubt = 1 / (pictures + 2)
    targets = np.full(logits.shape, doubt / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - doubt

    def slope(factor: float) -> float:
        return float(((softmax(factor * logits, axis=1) - targets) * logits).sum(axis=1).mean())

    if slope(1.0) <= 0:
        return 1.0
    if slope(LEAST) >= 0:
        return LEAST
    root: Any = brentq(slope, LEAST, 1.0)
    return float(root)
