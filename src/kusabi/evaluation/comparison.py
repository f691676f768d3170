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

from kusabi.errors import DataError
from kusabi.evaluation.clusters import Groups, among, effective, summed
from kusabi.evaluation.few_disputed import widened
from kusabi.evaluation.intervals import Z95, t_quantile

ALL_TURNS, TURNS = 12, 9999
Z80 = 0.8416212335729143  # 80 % quantile of the normal distribution


def compare(
    new: ArrayLike, old: ArrayLike, *, judged: ArrayLike | None = None, groups: Groups | None = None, seed: int = 0,
    draws: int = 2000,
) -> dict[str, Any]:  # fmt: skip
    """How much more often ``new`` is right than ``old``: mean over seeds of the difference in accuracy.

    The interval (95 %, percentiles) resamples pictures, the same ones for every seed, and, when there are several
    seeds, the seeds too, stretched for being few; few disputed pictures widen it (``few_disputed.py``). McNemar's test
    counts a picture as right when more than half of the seeds that judged it are right. With groups all of this is
    about groups: they are resampled, and the test turns the sides of whole groups; ``n``, ``gained`` and ``lost`` stay
    pictures.
    ``compare(old, new)`` is the exact mirror image.

    Args:
        new: True where right, shape ``(seeds, n)`` or ``(n,)``.
        old: As ``new``; the same pictures in the same order.
        judged: False where a seed did not judge a picture, because it learned from it. All True when absent.
        groups: Of the pictures, ``(n,)`` (``clusters.py``); each is one by itself when absent.
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
    seen_by_any = np.asarray(seen.any(axis=0))
    groups = among(groups, seen_by_any)
    new, old, seen = new[:, seen_by_any], old[:, seen_by_any], seen[:, seen_by_any]
    seeds, n = new.shape
    difference = (new.astype(np.int64) - old) * seen
    balance = _discordant(new & seen, old & seen, seen)
    parts = (difference / seen.sum(axis=1, keepdims=True)).mean(axis=0)
    basis = "one run" if seeds == 1 else "majority of the seeds"
    return {
        "value": float((difference.sum(axis=1) / seen.sum(axis=1)).mean()),
        "interval": widened(_bootstrap(difference, seen, groups, seed, draws), parts, groups=groups),
        "mcnemar_p": _chance(balance if groups is None else summed(balance, groups)),
        "mcnemar_basis": basis if groups is None else f"groups, {basis}",
        **dict(zip(("gained", "lost"), _sides(balance), strict=True)),
        "minimum_detectable_effect": _detectable(difference, seen, groups),
        "n": n,
        "seeds": seeds,
    }


def _discordant(new: NDArray[np.bool_], old: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """1 for pictures that only ``new`` gets right, -1 where only ``old`` does, by majority of the seeds; ``(n,)``."""
    new_right, old_right = (2 * side.sum(axis=0) > seen.sum(axis=0) for side in (new, old))
    return new_right.astype(np.int64) - old_right


def _chance(balance: NDArray[np.int64]) -> float:
    """How probable so much is if in each unit either side could as well be the other: of pictures, McNemar's test.

    Groups weigh as much as their balance (R. A. Fisher, "The Design of Experiments" (1935), section 21): all turns of
    their signs, or, of many groups, as many as leave the figure uncertain by no more than half a hundredth.
    """
    ahead, behind = _sides(balance)
    if np.abs(balance).max() <= 1:
        return float(binomtest(ahead, ahead + behind, 0.5).pvalue) if ahead + behind else 1.0
    sums = np.abs(balance[balance != 0])
    count = len(sums)
    if count <= ALL_TURNS:
        turned = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float((np.abs((2 * turned - 1) @ sums) >= abs(balance.sum())).mean())
    turned = np.random.default_rng(0).integers(0, 2, (TURNS, count))
    return float(((np.abs((2 * turned - 1) @ sums) >= abs(balance.sum())).sum() + 1) / (TURNS + 1))


def _sides(balance: NDArray[np.int64]) -> tuple[int, int]:
    return int((balance > 0).sum()), int((balance < 0).sum())


def _detectable(difference: NDArray[np.int64], seen: NDArray[np.bool_], groups: Groups | None) -> float:
    """The true difference that a test of this size finds in four cases out of five."""
    n = seen.shape[1]
    if groups is None:
        units, more, z = float(n), 1.0, Z95
    else:
        units, z = effective(groups), t_quantile(int(groups.max()) + 1)
        # By so much disputes that come in groups spread further than as many that come alone.
        more = max(1.0, float((summed(difference, groups) ** 2).sum()) / max(float((difference**2).sum()), 1.0))
    # With no picture in dispute the rate is below what so many units can show: one of them is the floor.
    disputed = float((difference != 0).sum() / seen.sum())
    variance = max(more * disputed / n, 1 / units**2)
    return min(1.0, (z + Z80) * math.sqrt(variance))


def _bootstrap(
    difference: NDArray[np.int64], seen: NDArray[np.integer | np.bool_], groups: Groups | None, seed: int, draws: int
) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    if groups is not None:
        difference, seen = summed(difference, groups), summed(seen.astype(np.int64), groups)
    seeds, n = difference.shape
    if groups is not None and n == 1:
        return -1.0, 1.0
    # Units (pictures, or groups of them) with the same column are exchangeable: drawing how often each kind of column
    # comes up is the same as drawing units, and costs the same for 100 pictures as for a million. Kinds are ordered by
    # first appearance, so that swapping the two sides draws the same units.
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
    further = _stretch(difference, seen, math.inf if groups is None else n)
    stretched = np.sort(values if further == 1 else value + further * (values - value))
    tail = math.floor(0.025 * draws)
    return float(np.clip(stretched[tail], -1, 1)), float(np.clip(stretched[draws - 1 - tail], -1, 1))


def _stretch(difference: NDArray[np.int64], seen: NDArray[np.integer | np.bool_], units: float) -> float:
    """Student's t over the normal quantile, for a spread of which few seeds are one part and ``units`` another.

    Degrees of freedom: F. Satterthwaite, Biometrics Bulletin 2 (1946). Where seeds agree and there are many units this
    is 1; where the spread is that of the seeds alone, it is Student's own. Few units lose a part of theirs as few seeds
    do, which is made up for here.
    """
    judged = seen.sum(axis=1, keepdims=True)
    shares = difference.sum(axis=1, keepdims=True) / judged
    of_seeds = float(shares.var(ddof=1)) / len(seen) if len(seen) > 1 else 0.0
    of_units = float(((difference - shares * seen) / judged).mean(axis=0).var()) * seen.shape[1]
    doubt = (of_seeds**2 / (len(seen) - 1) if of_seeds else 0.0) + of_units**2 / (units - 1)
    lost = math.sqrt(units / (units - 1)) if math.isfinite(units) else 1.0
    return lost * (t_quantile(1 + (of_seeds + of_units) ** 2 / doubt) / Z95 if doubt else 1.0)
