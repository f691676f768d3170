"""Where the classifier starts: the mean of two logistic fits, around a blend of text and pictures and around nothing.

Each is chosen by cross-validation on the support set alone: the share of the support means in the anchor, how sharp the
anchor is, and how dear it is to leave it; the plain probe has a strength of its own. Few labels cannot tell which of
the two is better, and their mean is the safer answer. How well the text alone tells these pictures apart, which it has
never seen, says how far to trust it, in the anchor and beside the plain probe: it bounds what few pictures choose, and
decides where every class has one and nothing can be held out (``benchmarks/telling_names.py``).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from kusabi.training.anchors import SHARES, Rows, anchor_choice, anchors, log_loss, means_share, most_of_pictures

Fit = TypeVar("Fit")

STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
SCALE_PRIOR, STRENGTH_PRIOR = 32.0, 1e-2
FOLDS = 5


@dataclass(frozen=True)
class Head:
    """Logits are ``x @ weights.T + offsets`` of unit rows ``x``; the rest says how it came about."""

    weights: Rows  # (C, D)
    offsets: Rows  # (C,)
    share: float
    scale: float
    strength: float
    probe_strength: float
    probe_share: float  # of the plain probe in the mean


@threadpool_limits.wrap(limits=1, user_api="blas")  # products this small only wait for each other on several threads
def fit_head(
    features: Rows, labels: NDArray[np.int64], pictures: NDArray[np.int64], text: Rows, share: float | None = None
) -> Head:
    """The mean of the anchored fit and the plain probe, each of the lowest cross-validated log-loss.

    Args:
        features: Unit embeddings of all views, ``(n, D)``.
        labels: Class of each, ``(n,)``.
        pictures: Picture of each, ``(n,)``; views of one picture are never split by a fold.
        text: Unit text embeddings, ``(C, D)``.
        share: Fixed share of the support means; chosen when absent.
    """
    features, text = features.astype(np.float64), text.astype(np.float64)
    fold = _folds(labels, pictures)
    if fold.max() < 0:
        told = means_share(features, labels, pictures, text)
        share, probe_share = told if share is None else share, told
        scale, strength, probe_strength = SCALE_PRIOR, STRENGTH_PRIOR, STRENGTH_PRIOR
    else:
        most = most_of_pictures(features, labels, pictures, text)
        probe_share = min(0.5, most)
        shares = tuple(dict.fromkeys(min(each, most) for each in SHARES)) if share is None else (share,)
        share, scale = anchor_choice(features, labels, text, fold, shares)
        parts = [_Part.of(features, fold != number) for number in range(fold.max() + 1)]
        strength, probe_strength = _both(
            lambda scale: _strength_choice(features, labels, text, parts, share, scale), scale
        )
    return _head(features, labels, text, share, scale, (strength, probe_strength), probe_share)


def refit_like(head: Head, features: Rows, labels: NDArray[np.int64], text: Rows) -> Head:
    """The head of another's choices on other features."""
    strengths = (head.strength, head.probe_strength)
    return refit(features, labels, text, head.share, head.scale, strengths, head.probe_share)


def sharpened(head: Head, factor: float) -> Head:
    """The same ranking with logits ``factor`` times as large."""
    return replace(head, weights=factor * head.weights, offsets=factor * head.offsets)


@threadpool_limits.wrap(limits=1, user_api="blas")
def refit(
    features: Rows, labels: NDArray[np.int64], text: Rows, share: float, scale: float,
    strengths: tuple[float, float], probe_share: float = 0.5,
) -> Head:  # fmt: skip
    """The head of given choices on given features; both optima are unique.

    Args:
        features: Unit rows ``(n, D)``.
        labels: Class of each.
        text: Unit text embeddings ``(C, D)``.
        share: Of the support means in the anchor.
        scale: How sharp the anchor is.
        strengths: How dear it is to leave the anchor, and the plain probe's own.
        probe_share: Of the plain probe in the mean.
    """
    kinds = features.astype(np.float64), labels, text.astype(np.float64)
    return _head(*kinds, share, scale, strengths, probe_share)


def _head(
    features: Rows, labels: NDArray[np.int64], text: Rows, share: float, scale: float,
    strengths: tuple[float, float], probe_share: float,
) -> Head:  # fmt: skip
    axes = _axes(features)
    anchored, probe = _both(
        lambda sharpness: _fitted(
            axes, features, labels, sharpness * anchors(features, labels, text, share),
            strengths[0] if sharpness else strengths[1],
        ),
        scale,
    )  # fmt: skip
    weights, offsets = (
        (1 - probe_share) * one + probe_share * other for one, other in zip(anchored, probe, strict=True)
    )
    return Head(weights, offsets, share, scale, *strengths, probe_share)


def _both(fit: Callable[[float], Fit], scale: float) -> tuple[Fit, Fit]:
    """Of the anchor's scale and of none: by two threads, where torch has as many."""
    if torch.get_num_threads() < 2:
        return fit(scale), fit(0.0)
    with ThreadPoolExecutor(2) as pool:
        anchored, probe = pool.map(fit, (scale, 0.0))
    return anchored, probe


@threadpool_limits.wrap(limits=1, user_api="blas")
def logistic_fit(features: Rows, labels: NDArray[np.int64], anchor: Rows, strength: float) -> tuple[Rows, Rows]:
    """Weights ``(C, D)`` and offsets ``(C,)`` of least penalized log-loss around an anchor ``(C, D)``."""
    return _fitted(_axes(features), features, labels, anchor, strength)


def _fitted(
    axes: "_Axes", features: Rows, labels: NDArray[np.int64], anchor: Rows, strength: float
) -> tuple[Rows, Rows]:
    return _unrotated(axes, anchor, _fit(axes, labels, features @ anchor.T, strength, precise=True))


def _folds(labels: NDArray[np.int64], pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold of every row: the pictures of a class are dealt out in turn. -1 is held out by none.

    That is the only picture of its class, and all of them where fewer than two of several classes have more.
    """
    per_class = [np.unique(pictures[labels == c]) for c in np.unique(labels)]
    several = [of_class for of_class in per_class if len(of_class) > 1]
    if len(several) < min(2, len(per_class)):
        return np.full(len(pictures), -1)
    folds = min(FOLDS, *(len(of_class) for of_class in several))
    dealt = {picture: i % folds for i, picture in enumerate(np.concatenate(several).tolist())}
    return np.array([dealt.get(picture, -1) for picture in pictures.tolist()])


def _strength_choice(
    features: Rows, labels: NDArray[np.int64], text: Rows, parts: Sequence["_Part"], share: float, scale: float
) -> float:
    """How dear leaving the anchor is; at a scale of zero there is none, and it is the probe's own."""
    losses: dict[float, float] = {}
    added: list[Rows | None] = [None] * len(parts)
    anchored = [scale * features @ anchors(features[part.inside], labels[part.inside], text, share).T for part in parts]
    for strength in STRENGTHS:
        losses[strength] = 0.0
        for i, part in enumerate(parts):
            inside, outside = part.inside, ~part.inside
            added[i] = fit = _fit(
                part.axes, labels[inside], anchored[i][inside], strength, precise=False, start=added[i]
            )
            losses[strength] += log_loss(anchored[i][outside] + part.outside @ fit, labels[outside])
        if losses[strength] > 1.02 * min(losses.values()):
            break  # the loss falls, then rises: past the valley weaker, slower fits are idle
    return min(losses, key=lambda choice: losses[choice])


@dataclass(frozen=True)
class _Axes:
    """Features in units of their spread, in their own principal axes, with a last column of ones."""

    centre: Rows
    size: float
    directions: Rows  # (axes, D)
    inputs: Rows  # (n, axes + 1)


@dataclass(frozen=True)
class _Part:
    """One fold of a cross-validation: which rows are fitted to, their axes, and the other rows in these."""

    inside: NDArray[np.bool_]
    axes: _Axes
    outside: Rows  # (rows, axes + 1)

    @classmethod
    def of(cls, features: Rows, inside: NDArray[np.bool_]) -> "_Part":
        axes = _axes(features[inside])
        return cls(inside, axes, _inputs(features[~inside], axes.centre, axes.size, axes.directions))


def _axes(features: Rows) -> _Axes:
    """Principal axes from the smaller of the two products of the rows with themselves: a tenth of an SVD's time."""
    centre = features.mean(axis=0)
    centred = features - centre
    size = max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)
    rows = centred / size
    tall = len(rows) >= rows.shape[1]
    squares, vectors = np.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    kept = squares > 1e-10 * max(float(squares[-1]), 1.0)
    directions = vectors[:, kept].T if tall else (vectors[:, kept] / np.sqrt(squares[kept])).T @ rows
    return _Axes(centre, size, directions, _inputs(features, centre, size, directions))


def _inputs(features: Rows, centre: Rows, size: float, directions: Rows) -> Rows:
    return np.hstack([(features - centre) / size @ directions.T, np.ones((len(features), 1))])


def _fit(
    axes: _Axes, labels: NDArray[np.int64], anchored: Rows, strength: float, precise: bool, start: Rows | None = None
) -> Rows:
    """What to add to the anchor's logits: least mean log-loss plus ``strength / 2 * |added|^2``, ``(axes + 1, C)``.

    In principal axes the curvature bound of D. Böhning (1992) is diagonal, so that L-BFGS needs few steps.
    """
    kind = np.float64 if precise else np.float32  # half the bytes, and enough to tell strengths apart
    inputs, logits_before = axes.inputs.astype(kind), np.ascontiguousarray(anchored.T, kind)
    across, rows = np.ascontiguousarray(inputs.T), np.arange(len(labels))
    truth = np.eye(len(logits_before), dtype=kind)[:, labels]
    penalty = np.append(np.full(len(across) - 1, strength), 1e-4)
    stretch = 1 / np.sqrt((axes.inputs**2).mean(axis=0) / 2 + penalty)
    shape, own_penalty, own_stretch = (len(truth), len(across)), penalty.astype(kind), stretch.astype(kind)

    def loss(flat: Rows) -> tuple[float, Rows]:  # classes first: long rows suit BLAS and reductions
        weights = flat.reshape(shape).astype(kind) * own_stretch
        logits = logits_before + weights @ across
        logits -= logits.max(axis=0)
        chances = np.exp(logits)
        sums = chances.sum(axis=0)
        value = float((np.log(sums) - logits[labels, rows]).mean() + 0.5 * (own_penalty * weights**2).sum())
        slope = (chances / sums - truth) @ inputs / kind(len(labels)) + own_penalty * weights
        return value, (slope * own_stretch).ravel().astype(np.float64)

    first = np.zeros(shape) if start is None else start.T / stretch
    options = {"maxiter": 500, "gtol": 1e-6, "ftol": 1e-12} if precise else {"maxiter": 60, "gtol": 1e-4, "ftol": 1e-5}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    return (found.x.reshape(shape) * stretch).T


def _unrotated(axes: _Axes, anchor: Rows, added: Rows) -> tuple[Rows, Rows]:
    """The whole map on plain features: weights ``(C, D)`` and offsets ``(C,)``."""
    moved = added[:-1].T @ axes.directions / axes.size
    return anchor + moved, added[-1] - moved @ axes.centre
