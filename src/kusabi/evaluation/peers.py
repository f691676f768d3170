"""What anyone would try first on the frozen features, done properly, so that an adapter has to earn its place.

Both peers learn from the same labelled pictures, and the same augmented views of them, as the adapter does.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from kusabi.errors import DataError
from kusabi.evaluation.evaluate import class_indices

SCALES = tuple(float(scale) for scale in np.geomspace(4, 256, 13))
SCALE_PRIOR = 32.0
"""Scale of the cosines when a class has a single picture, so that none can be left out to choose it."""

STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""L2 strengths tried, strongest first, in units of the mean log-loss of centred features of mean squared length 1."""
STRENGTH_PRIOR = 1e-2
"""The strength when a class has a single picture: close to nearest class mean, yet sure of clear cases."""

FOLDS = 5


def class_mean(
    features: ArrayLike,
    labels: ArrayLike,
    query: ArrayLike,
    classes: int,
    scale: float | None = None,
    groups: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Probabilities, shape ``(m, classes)``, by cosine to the mean feature of every class.

    Args:
        features: Unit features of the support set, shape ``(n, width)``.
        labels: Their class indices, shape ``(n,)``.
        query: Unit features to answer, shape ``(m, width)``.
        classes: Number of classes; each needs a feature.
        scale: Factor of the cosines before the softmax; when absent, that of the lowest log-loss over support pictures
            each left out in turn, or 32 when a class has a single picture.
        groups: Picture of every feature, shape ``(n,)``; views of one picture share it. Absent: one view each.

    Raises:
        DataError: When shapes do not match or a class has no feature.
    """
    features, labels, query, groups = _checked(features, labels, query, groups, classes)
    sums = np.stack([features[labels == index].sum(axis=0) for index in range(classes)])
    if scale is None:
        scale = _scale(features, labels, groups, sums)
    return softmax(scale * query @ _unit(sums).T, axis=1)


@threadpool_limits.wrap(limits=1, user_api="blas")  # products this small only wait for each other on several threads
def linear_probe(
    features: ArrayLike, labels: ArrayLike, groups: ArrayLike, query: ArrayLike, classes: int
) -> NDArray[np.float64]:
    """Probabilities, shape ``(m, classes)``, by multinomial logistic regression with an L2 penalty on the weights.

    Features are centred and scaled as a whole (never column by column, which would blow up idle columns). The strength
    of the penalty comes from the support set alone: see ``probe_strength``. The optimum is unique; nothing is random.

    Args:
        features: Unit features of the support set, shape ``(n, width)``.
        labels: Their class indices, shape ``(n,)``.
        groups: Picture of every feature, shape ``(n,)``: the folds never split a picture's views.
        query: Unit features to answer, shape ``(m, width)``.
        classes: Number of classes; each needs a feature.

    Raises:
        DataError: When shapes do not match or a class has no feature.
    """
    features, labels, query, groups = _checked(features, labels, query, groups, classes)
    columns, project = _principal(features)
    strength = _strength(columns, labels, groups, classes)
    start = np.zeros((columns.shape[1] + 1, classes))
    return softmax(_with_ones(project(query)) @ _fit(columns, labels, strength, start), axis=1)


@threadpool_limits.wrap(limits=1, user_api="blas")
def probe_strength(features: ArrayLike, labels: ArrayLike, groups: ArrayLike, classes: int) -> float:
    """The L2 strength of the lowest cross-validated log-loss on the support set, out of ``STRENGTHS``.

    Folds are ``min(5, pictures of the smallest class)``, stratified by class and whole pictures. When a class has a
    single picture nothing can be held out, and the answer is ``STRENGTH_PRIOR``.

    Raises:
        DataError: As ``linear_probe``.
    """
    features, labels, _, groups = _checked(features, labels, features, groups, classes)
    return _strength(_principal(features)[0], labels, groups, classes)


def _checked(
    features: ArrayLike, labels: ArrayLike, query: ArrayLike, groups: ArrayLike | None, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    features, query = np.asarray(features, dtype=np.float64), np.asarray(query, dtype=np.float64)
    labels = class_indices(labels, classes)
    pictures = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if features.ndim != 2 or query.ndim != 2 or features.shape[1] != query.shape[1]:
        raise DataError(f"features {features.shape} and query {query.shape} must be rows of equal width")
    if not len(features) == len(labels) == len(pictures):
        raise DataError(
            f"{len(features)} features, {len(labels)} labels and {len(pictures)} groups must be equal in number"
        )
    if not (np.isfinite(features).all() and np.isfinite(query).all()):
        raise DataError("features are not finite; use dtype float32 if a half-precision backbone overflows")
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(missing):
        raise DataError(f"classes {missing.tolist()} have no support picture; every class needs at least one")
    return features, labels, query, pictures.ravel()


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _scale(
    features: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], sums: NDArray[np.float64]
) -> float:
    if _smallest_class(labels, groups) < 2:
        return SCALE_PRIOR
    cosines = features @ _unit(sums).T
    own = np.stack([features[groups == group].sum(axis=0) for group in range(groups.max() + 1)])[groups]
    rows = np.arange(len(labels))
    cosines[rows, labels] = (features * _unit(sums[labels] - own)).sum(axis=1)
    losses = [float((_log_sum(s * cosines).ravel() - s * cosines[rows, labels]).mean()) for s in SCALES]
    return SCALES[int(np.argmin(losses))]


def _log_sum(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of every row's sum of exponentials, as a column."""
    top = logits.max(axis=1, keepdims=True)
    return top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def _smallest_class(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> int:
    return min(len(np.unique(groups[labels == label])) for label in np.unique(labels))


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The fold of every row: pictures of a class are dealt out in turn."""
    fold = np.empty(len(labels), dtype=np.int64)
    dealt = 0
    for label in np.unique(labels):
        for group in np.unique(groups[labels == label]):
            fold[groups == group] = dealt % folds
            dealt += 1
    return fold


def _strength(
    columns: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], classes: int
) -> float:
    folds = min(FOLDS, _smallest_class(labels, groups))
    if folds < 2:
        return STRENGTH_PRIOR
    fold = _folds(labels, groups, folds)
    weights = [np.zeros((columns.shape[1] + 1, classes)) for _ in range(folds)]
    losses: list[float] = []
    for strength in STRENGTHS:
        total = 0.0
        for index in range(folds):
            inside, outside = fold != index, fold == index
            weights[index] = _fit(columns[inside], labels[inside], strength, weights[index], precise=False)
            logits = _with_ones(columns[outside]) @ weights[index]
            total += float((_log_sum(logits).ravel() - logits[np.arange(len(logits)), labels[outside]]).sum())
        losses.append(total / len(labels))
        # The loss falls, then rises as the penalty fades: past the valley, weaker (and slower) fits are idle.
        if losses[-1] > 1.05 * min(losses):
            break
    return STRENGTHS[int(np.argmin(losses))]


def _principal(features: NDArray[np.float64]):
    """Centred, scaled features in their own principal axes, and the function that puts others there.

    A rotation changes nothing for an L2 penalty; it drops the axes that n pictures cannot span and makes ``_fit`` fast.
    """
    centre = features.mean(axis=0)
    centred = features - centre
    size = max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)
    _, values, axes = np.linalg.svd(centred / size, full_matrices=False)
    axes = axes[values > 1e-7 * max(values[0], 1.0)]

    def project(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return (rows - centre) / size @ axes.T

    return project(features), project


def _with_ones(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([columns, np.ones((len(columns), 1))])


def _fit(
    columns: NDArray[np.float64],
    labels: NDArray[np.int64],
    strength: float,
    start: NDArray[np.float64],
    precise: bool = True,
) -> NDArray[np.float64]:
    """Weights, shape ``(width + 1, classes)``, of the least mean log-loss plus ``strength / 2 * |weights|^2``.

    The last row is the bias, without penalty. L-BFGS runs in coordinates where the curvature is even: D. Böhning's
    bound (1992) on it is half the second moment of the features, which is diagonal in their principal axes.
    """
    inputs, truth = _with_ones(columns), np.eye(start.shape[1])[labels]
    penalty = np.append(np.full(columns.shape[1], strength), 0.0)[:, None]
    stretch = 1 / np.sqrt((inputs**2).mean(axis=0)[:, None] / 2 + penalty + 1e-9)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape) * stretch
        logits = inputs @ weights
        log_sum = _log_sum(logits)
        value = float((log_sum.ravel() - (logits * truth).sum(axis=1)).mean() + 0.5 * (penalty * weights**2).sum())
        slope = inputs.T @ (np.exp(logits - log_sum) - truth) / len(inputs) + penalty * weights
        return value, (slope * stretch).ravel()

    options = (
        {"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-13} if precise else {"maxiter": 100, "gtol": 1e-4, "ftol": 1e-5}
    )
    found = minimize(loss, (start / stretch).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape) * stretch
