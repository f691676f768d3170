"""Two ways of answering the same pictures, compared picture by picture.

Sources: Q. McNemar, Psychometrika 12 (1947), in its exact binomial form; B. Efron and R. Tibshirani, "An Introduction
to the Bootstrap" (1993), percentile interval; sample size of paired shares: O. Miettinen, Biometrics 24 (1968), and
R. J. Connor, Biometrics 43 (1987), in the simple form that leaves out the square of the effect (a little too careful).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from kusabi.errors import DataError
from kusabi.evaluation.few_disputed import widened
from kusabi.evaluation.intervals import Z95

Z80 = 0.8416212335729143  # 80 % quantile of the normal distribution


def compare(
    new: ArrayLike, old: ArrayLike, *, judged: ArrayLike | None = None, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:
    """How much more often ``new`` is right than ``old``: mean over seeds of the difference in accuracy.

    The interval (95 %, percentiles) resamples pictures, the same ones for every seed, and, when there are several
    seeds, the seeds too, stretched for being few; few disputed pictures widen it (``few_disputed.py``). McNemar's test
    counts a picture as right when more than half of the seeds that judged it are right.
    ``compare(old, new)`` is the exact mirror image.

    Args:
        new: True where right, shape ``(seeds, n)`` or ``(n,)``.
        old: As ``new``; the same pictures in the same order.
        judged: False where a seed did not judge a picture, because it learned from it. All True when absent.
        seed: Seed of the resampling.
        draws: Number of resamples.

    Raises:
        DataError: When the shapes do not match or nothing was judged.
    """
    new, old = (np.atleast_2d(np.asarray(side, dtype=bool)) for side in (new, old))
    seen = np.ones(new.shape, dtype=bool) if judged is None else np.atleast_2d(np.asarray(judged, dtype=bool))
    if not new.shape == old.shape == seen.shape:
        raise DataError(
            f"shapes {new.shape}, {old.shape}, {seen.shape} differ; both sides must answer the same pictures"
        )
    if new.size == 0 or not seen.any(axis=1).all():
        raise DataError("a comparison needs at least one judged picture in every seed")
    seen_by_any = seen.any(axis=0)
    new, old, seen = new[:, seen_by_any], old[:, seen_by_any], seen[:, seen_by_any]
    seeds, n = new.shape
    difference = (new.astype(np.int64) - old) * seen
    gained, lost = _discordant(new & seen, old & seen, seen)
    # With no picture in dispute the rate is below what n pictures can show: one picture is the floor.
    discordance = max(float(((new != old) & seen).sum() / seen.sum()), 1 / n)
    parts = (difference / seen.sum(axis=1, keepdims=True)).mean(axis=0)
    return {
        "value": float((difference.sum(axis=1) / seen.sum(axis=1)).mean()),
        "interval": widened(_bootstrap(difference, seen, seed, draws), parts),
        "mcnemar_p": float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0,
        "mcnemar_basis": "one run" if seeds == 1 else "majority of the seeds",
        "gained": gained,
        "lost": lost,
        "minimum_detectable_effect": min(1.0, (Z95 + Z80) * math.sqrt(discordance / n)),
        "n": n,
        "seeds": seeds,
    }


def _discordant(new: NDArray[np.bool_], old: NDArray[np.bool_], seen: NDArray[np.bool_]) -> tuple[int, int]:
    """Pictures that only ``new`` gets right, and that only ``old`` gets right, by majority of the seeds."""
    new_right, old_right = (2 * side.sum(axis=0) > seen.sum(axis=0) for side in (new, old))
    return int((new_right & ~old_right).sum()), int((old_right & ~new_right).sum())


def _bootstrap(difference: NDArray[np.int64], seen: NDArray[np.bool_], seed: int, draws: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    seeds, n = difference.shape
    # Pictures with the same column are exchangeable: drawing how often each kind of column comes up is the same as
    # drawing pictures, and costs the same for 100 pictures as for a million. Kinds are ordered by first appearance, so
    # that swapping the two sides draws the same pictures.
    _, first, kind = np.unique(np.vstack([difference, seen]), axis=1, return_index=True, return_inverse=True)
    counts = np.bincount(kind.ravel())
    order = np.argsort(first)
    columns, counts = first[order], counts[order]
    pictures = random.multinomial(n, counts / n, size=draws)
    among = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) if seeds > 1 else np.ones((draws, 1))
    judged = pictures @ seen[:, columns].T
    shares = (pictures @ difference[:, columns].T) / np.maximum(judged, 1)
    # A seed none of whose pictures were drawn says nothing in that draw: it stands where the others do on average.
    middle = shares.sum(axis=1) / np.maximum((judged > 0).sum(axis=1), 1)
    shares = np.where(judged > 0, shares, middle[:, None])
    # Resampled seeds lose a part of the spread of so few (J. Rao and C. Wu, JASA 83, 1988).
    weight = 1 / seeds + math.sqrt(seeds / max(seeds - 1, 1)) * (among / seeds - 1 / seeds)
    values, value = (shares * weight).sum(axis=1), float((difference.sum(axis=1) / seen.sum(axis=1)).mean())
    stretched = np.sort(value + _stretch(difference, seen) * (values - value) if seeds > 1 else values)
    tail = math.floor(0.025 * draws)
    return float(np.clip(stretched[tail], -1, 1)), float(np.clip(stretched[draws - 1 - tail], -1, 1))


def _stretch(difference: NDArray[np.int64], seen: NDArray[np.bool_]) -> float:
    """Student's t over the normal quantile, for a spread of which few seeds are one part and many pictures another.

    Degrees of freedom: F. Satterthwaite, Biometrics Bulletin 2 (1946). Where seeds agree this is 1; where the spread
    is that of the seeds alone, it is Student's own.
    """
    judged = seen.sum(axis=1, keepdims=True)
    of_seeds = float((difference / judged).sum(axis=1).var(ddof=1)) / len(seen)
    of_pictures = float((difference / judged).mean(axis=0).var()) * seen.shape[1]
    if of_seeds == 0:
        return 1.0
    freedom = (len(seen) - 1) * ((of_seeds + of_pictures) / of_seeds) ** 2
    return float(student.ppf(0.975, freedom)) / Z95
