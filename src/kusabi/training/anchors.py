"""What a classifier is fitted around: unit vectors between the texts of classes and the means of their pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Rows = NDArray[np.float64]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SCALES = tuple(float(scale) for scale in np.geomspace(1, 128, 15))
TRUST = 4
"""Power of the pictures that a text counts as, beside those that a class has; ``benchmarks/telling_names.py``."""


def means_share(features: Rows, labels: NDArray[np.int64], pictures: NDArray[np.int64], text: Rows) -> float:
    """Share of the pictures beside the text where every class has one, at most a half."""
    return 1 / (1 + text_pictures(features, labels, pictures, text) ** TRUST)


def most_of_pictures(features: Rows, labels: NDArray[np.int64], pictures: NDArray[np.int64], text: Rows) -> float:
    """Share that several pictures a class may have beside the text: all, unless the text counts as more than they are.

    Cross-validation chooses among shares up to it. Where names tell nearly everything, so few pictures can choose
    wrongly, and that costs more than they can win.
    """
    each = len(np.unique(pictures)) / len(text)
    return min(1.0, each / text_pictures(features, labels, pictures, text) ** TRUST)


def text_pictures(features: Rows, labels: NDArray[np.int64], pictures: NDArray[np.int64], text: Rows) -> float:
    """As how many labelled pictures a class the text embedding counts: ``1 / (1 - information)``.

    Information is the share of the labels' entropy that the text explains on the pictures themselves, at its best
    sharpness; one picture more is counted as told by chance, since of two pictures both are soon right. A mean of one
    picture misses the class by its spread within; the text misses it by what it does not explain. Of a single class
    there is nothing to tell.
    """
    if len(text) < 2:
        return 1.0
    first = np.unique(pictures, return_index=True)[1]
    logits, truth = features[first] @ text.T, labels[first]
    chance = float(np.log(len(text)))
    least = min(log_loss(scale * logits, truth) for scale in SCALES)
    explained = 1 - (least + chance) / ((len(truth) + 1) * chance)
    return 1 / (1 - max(0.0, explained))


def anchors(features: Rows, labels: NDArray[np.int64], text: Rows, share: float) -> Rows:
    """Unit vectors ``(C, D)`` between text and class means; a class without a picture keeps its text."""
    means = class_means(features, labels, len(text))
    seen = means.any(axis=1, keepdims=True)
    return np.where(seen, _unit((1 - share) * text + share * means), text)


def class_means(features: Rows, labels: NDArray[np.int64], classes: int) -> Rows:
    """Unit vectors ``(C, D)`` along the means of each class; zero where it has no picture."""
    return _unit(np.eye(classes)[labels].T @ features)


def _unit(rows: Rows) -> Rows:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def log_loss(logits: Rows, labels: NDArray[np.int64]) -> float:
    """Summed over the rows, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].sum())


def anchor_choice(
    features: Rows, labels: NDArray[np.int64], text: Rows, fold: NDArray[np.int64], shares: Sequence[float]
) -> tuple[float, float]:
    """Share of the means, and sharpness, of the lowest log-loss on pictures of other folds than the means are of.

    ``fold`` is -1 for rows that are never judged.
    """
    judged = fold >= 0
    losses: dict[tuple[float, float], float] = {}
    for share in shares:
        cosines = np.empty((len(features), len(text)))
        for index in range(fold.max() + 1):
            inside, outside = fold != index, fold == index
            cosines[outside] = features[outside] @ anchors(features[inside], labels[inside], text, share).T
        losses |= {(share, scale): log_loss(scale * cosines[judged], labels[judged]) for scale in SCALES}
    return min(losses, key=lambda choice: losses[choice])
