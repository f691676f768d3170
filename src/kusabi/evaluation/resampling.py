"""Shares of right answers under resampling of draws and pictures, for several numbers of labels at once.

Draws of the support set and query pictures both are samples, and both are resampled (hierarchically: a draw is one
chain of nested support sets, so the same draws are taken at every number of labels, and the same pictures for every
draw). Few draws say little about their own spread: their deviations are stretched by ``sqrt(d / (d - 1))`` for the
spread that a resample of d loses (J. Rao and C. Wu, JASA 83, 1988) and by Student's t over the normal quantile.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kusabi.evaluation.clusters import Groups
from kusabi.evaluation.intervals import LEVEL, stretch

_AT_ONCE = 250  # resamples in one product


def resampled_recalls(
    right: NDArray[np.bool_], truth: NDArray[np.int64], classes: int, *, seed: int, resamples: int,
    groups: Groups | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Recall of every class, and accuracy, in every resample.

    Args:
        right: True where right, ``(s, d, m)``: numbers of labels, draws, pictures.
        truth: Class of each picture, ``(m,)``.
        classes: How many there are.
        seed: Of the resampling.
        resamples: How many.
        groups: Of the pictures (``clusters.py``); each is one by itself when absent.

    Returns:
        Recalls ``(resamples, classes, s)``, NaN where a class has no picture in a resample, and accuracies
        ``(resamples, s)``. Stretched deviations are cut at 0 and 1.
    """
    steps, draws, pictures = right.shape
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(truth == label) for label in range(classes)]
    answers = [right[:, :, of_class].reshape(steps * draws, -1).T.astype(np.float64) for of_class in members]
    units = np.arange(pictures) if groups is None else groups
    count_of_units = int(units.max()) + 1
    recalls, accuracies = [], []
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        drawn = random.multinomial(count_of_units, np.full(count_of_units, 1 / count_of_units), size=count)
        times = drawn.astype(np.float64)[:, units]
        among = random.multinomial(draws, np.full(draws, 1 / draws), size=count) / draws
        shares = 1 / draws + stretch(draws) * (among - 1 / draws)
        seen = np.stack([times[:, of_class].sum(axis=1) for of_class in members], axis=1)
        found = np.stack([times[:, rows] @ of for rows, of in zip(members, answers, strict=True)], axis=1)
        hits = np.einsum("bcsd,bd->bcs", found.reshape(count, classes, steps, draws), shares)
        recalls.append(np.divide(hits, seen[:, :, None], where=seen[:, :, None] > 0, out=np.full(hits.shape, np.nan)))
        accuracies.append(hits.sum(axis=1) / times.sum(axis=1, keepdims=True))
    found = np.concatenate(recalls), np.concatenate(accuracies)
    if groups is not None:
        found = _few_groups(*found, right.mean(axis=1), members, groups)
    return np.clip(found[0], 0, 1), np.clip(found[1], 0, 1)


def _few_groups(
    recalls: NDArray[np.float64], accuracies: NDArray[np.float64], right: NDArray[np.float64],
    members: Sequence[NDArray[np.int64]], groups: Groups,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Deviations from the whole, stretched by the number of groups, for each class by its own."""
    for label, of_class in enumerate(members):
        if len(of_class):
            whole = right[:, of_class].mean(axis=1)
            factor = stretch(len(np.unique(groups[of_class])))
            recalls[:, label] = whole + factor * (recalls[:, label] - whole)
    whole = right.mean(axis=1)
    return recalls, whole + stretch(int(groups.max()) + 1) * (accuracies - whole)


def interval(values: ArrayLike, value: float, level: float = LEVEL) -> list[float]:
    """The percentile interval of resampled values; it never leaves out the value itself."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.asarray(values, dtype=np.float64), [tail, 1 - tail])
    return [float(min(low, value)), float(max(high, value))]
