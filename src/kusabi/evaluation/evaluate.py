"""Every number about one set of answers, for zero-shot, peers and adapters alike.

Definitions, where the literature has several:

- the answer is the class of the highest score; a tie goes to the lower index;
- ``brier``: squared error summed over the classes (0 best, 2 worst), mean over pictures (Brier 1950);
- ``nll``: natural logarithm; a probability below 1e-12 counts as 1e-12, so that one certain error stays finite;
- ``ece``: confidence against accuracy in 15 bins of equal width (Guo et al. 2017);
- ``balanced_accuracy``, ``macro_f1``: mean over the classes that have pictures;
- ``auroc`` and ``recall_at_false_alarm``: with two classes the second one is the positive; with more, each class
  against the rest, mean over the classes for which both sides exist;
- what cannot be computed (no picture of a class, a class never answered) is None, never 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from kusabi.errors import DataError
from kusabi.evaluation.clusters import Groups, among, share_interval

FALSE_ALARM_RATE = 0.05
ECE_BINS = 15
SMALLEST_PROBABILITY = 1e-12


def evaluate(
    scores: ArrayLike, labels: ArrayLike, classes: Sequence[str], groups: Groups | None = None
) -> dict[str, Any]:
    """All numbers about the answers to ``n`` pictures, ready for JSON: finite floats, ints or None.

    Args:
        scores: Probabilities, shape ``(n, classes)``; rows sum to 1.
        labels: True class indices, shape ``(n,)``.
        classes: Names, in the order of the columns.
        groups: Of the pictures (``clusters.py``), which intervals then count; each is one by itself when absent.

    Raises:
        DataError: When a label is out of range, a row is not a distribution, or nothing is to be judged.
    """
    scores, labels = _checked(np.asarray(scores, dtype=np.float64), np.asarray(labels), classes)
    n, predicted = len(labels), scores.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = int(confusion.trace())
    truth = np.eye(len(classes))[labels]
    auroc, recall = _separation(scores, truth)
    hits = predicted == labels
    per_class = [
        _of_class(confusion, index, name, hits[labels == index], among(groups, labels == index))
        for index, name in enumerate(classes)
    ]
    return {
        "accuracy": right / n,
        "interval": share_interval(right, hits, groups),
        "n": n,
        "balanced_accuracy": mean_of_known([one["recall"] for one in per_class]),
        "macro_f1": mean_of_known([one["f1"] for one in per_class]),
        "auroc": auroc,
        "recall_at_false_alarm": {"rate": FALSE_ALARM_RATE, "recall": recall},
        "brier": float(((scores - truth) ** 2).sum(axis=1).mean()),
        "nll": float(-np.log(np.maximum(scores[np.arange(n), labels], SMALLEST_PROBABILITY)).mean()),
        "ece": _calibration_error(scores.max(axis=1), hits),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def _checked(
    scores: NDArray[np.float64], labels: NDArray[Any], classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if labels.ndim != 1 or len(labels) == 0:
        raise DataError(f"labels have shape {labels.shape}; evaluate at least one labelled picture")
    if len(classes) < 2:
        raise DataError(f"classes are {list(classes)}; two or more are needed to tell anything apart")
    if scores.shape != (len(labels), len(classes)):
        expected = (len(labels), len(classes))
        raise DataError(f"scores have shape {scores.shape}; {expected} is needed: a row a picture, a column a class")
    labels = class_indices(labels, len(classes))
    bad = ~np.isfinite(scores).all(axis=1) | (scores < 0).any(axis=1) | (np.abs(scores.sum(axis=1) - 1) > 1e-3)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"scores of {int(bad.sum())} pictures are not probabilities, first in row {row}: {scores[row][:8].tolist()}"
            "; values must be finite, not negative, and sum to 1 (lower the learning rate if training diverged)"
        )
    return scores, labels


def class_indices(labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Labels as int64, checked to lie in ``[0, classes)``.

    Raises:
        DataError: When they are not whole numbers or out of range.
    """
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"labels are of type {array.dtype}; give class indices as whole numbers")
    outside = np.flatnonzero((array < 0) | (array >= classes))
    if len(outside):
        raise DataError(
            f"label {array[outside[0]]} at position {outside[0]} is outside 0..{classes - 1}; {classes} classes exist"
        )
    return array.astype(np.int64)


def _of_class(
    confusion: NDArray[np.int64], index: int, name: str, right: NDArray[np.bool_], groups: Groups | None
) -> dict[str, Any]:
    hits, n, answers = (int(x) for x in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum()))
    return {
        "class": name,
        "n": n,
        "recall": hits / n if n else None,
        "interval": share_interval(hits, right, groups) if n else None,
        "precision": hits / answers if answers else None,
        "f1": 2 * hits / (n + answers) if n else None,
    }


def _separation(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """AUROC, and the highest recall whose false-alarm rate stays within the fixed one."""
    columns = [1] if truth.shape[1] == 2 else range(truth.shape[1])
    areas, recalls = [], []
    for column in columns:
        if 0 < truth[:, column].sum() < len(truth):
            areas.append(float(roc_auc_score(truth[:, column], scores[:, column])))
            alarms, hits, _ = roc_curve(truth[:, column], scores[:, column], drop_intermediate=False)
            recalls.append(float(hits[alarms <= FALSE_ALARM_RATE].max()))
    return mean_of_known(areas), mean_of_known(recalls)


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of what could be computed; None where nothing could."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
