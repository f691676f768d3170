"""How the error falls with the number of labels: ``error = a + b * n ** -c``.

Sources: C. Cortes et al., "Learning curves: asymptotic values and rate of convergence" (NIPS 1993), the form;
T. Viering and M. Loog, "The shape of learning curves" (arXiv 2103.10948), where it fails. ``a`` and ``b`` are never
negative: more labels never hurt under the law, and no error is below zero.

For a given exponent the other two follow in closed form, so that the exponent is looked up on a grid: nothing can fail
to converge, and thousands of resamples are fitted at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXPONENTS = np.geomspace(0.05, 2.0, 112)
PARAMETERS = 3


@dataclass(frozen=True)
class Laws:
    """``k`` laws; ``floor`` is a, ``size`` b, ``exponent`` c, each ``(k,)``; ``misfit`` the weighted squares left."""

    floor: NDArray[np.float64]
    size: NDArray[np.float64]
    exponent: NDArray[np.float64]
    misfit: NDArray[np.float64]

    def errors(self, labels: ArrayLike) -> NDArray[np.float64]:
        """Errors ``(k, s)`` at numbers of labels ``(s,)``."""
        powers = np.asarray(labels, dtype=np.float64)[None] ** -self.exponent[:, None]
        return self.floor[:, None] + self.size[:, None] * powers


def fit_laws(labels: ArrayLike, errors: ArrayLike, weights: ArrayLike) -> Laws:
    """The law of least weighted squares for each row of errors.

    Args:
        labels: Labels per class, ``(s,)``, above zero; three different ones at least.
        errors: Shares of wrong answers, ``(k, s)``.
        weights: Of the points, ``(s,)``: one over their variances.
    """
    labels, weights = np.asarray(labels, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    errors = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    assert len(np.unique(labels)) >= PARAMETERS, "three parameters need three different points"
    assert errors.shape[1:] == labels.shape == weights.shape, "one error and one weight a point"
    best = np.full((4, len(errors)), np.inf)
    share = weights / weights.sum()
    for exponent in EXPONENTS:
        powers = labels**-exponent
        centre, mean = powers @ share, errors @ share
        size = np.maximum((errors - mean[:, None]) @ (share * (powers - centre)) / ((powers - centre) ** 2 @ share), 0)
        floor = mean - size * centre
        through_zero = floor < 0
        size = np.where(through_zero, errors @ (share * powers) / (powers**2 @ share), size)
        floor = np.where(through_zero, 0.0, floor)
        misfit = (errors - floor[:, None] - size[:, None] * powers) ** 2 @ weights
        better = misfit < best[3]
        best[:, better] = np.stack([floor, size, np.full_like(floor, exponent), misfit])[:, better]
    return Laws(*best)
