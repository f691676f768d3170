"""LP++ (Huang et al., CVPR 2024, arXiv 2404.02285): a linear probe whose weights lean on the class texts.

``logits[i, k] = f_i . (w_k + alpha_k t_k)``, by majorize-minimize steps whose sizes come from Lipschitz bounds, from
starting values that come from the data. Nothing is tuned. The authors' 300 full-batch rounds are kept whatever the
number of steps of other methods: they cost milliseconds and are part of the method.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import single_threaded
from benchmarks.peers.frozen_features import picture_features, text_logits
from benchmarks.peers.material import Material

ROUNDS, MOMENTUM, CYCLE = 300, 0.9, 10  # alpha moves once in ten rounds, as in the authors' code
SPREAD = 250.0  # the authors' factor of the starting alpha


@dataclass(frozen=True)
class Start:
    """Starting values and step sizes: weights ``(C, D)``, one alpha for all classes."""

    weights: Tensor
    alpha: float
    weight_step: float
    alpha_step: float


@single_threaded()
def lp_plus_plus(material: Material) -> Answers:
    """Fit on all views, answer the query."""
    started = now()
    text = material.text[: material.classes].double()
    features, labels = material.views.features.double(), material.views.labels
    means, picture_labels = picture_features(material)
    weights, alphas, _ = fit(features, labels, text, starting(features, means.double(), picture_labels, text))
    learned = now()
    logits = material.query.double() @ (weights + alphas[:, None] * text).T
    trained = weights.numel() + len(alphas)
    return answered(
        logits, text_logits(material), trained=trained, stored=FLOAT * trained, started=started, learned=learned
    )


def starting(features: Tensor, means: Tensor, labels: Tensor, text: Tensor) -> Start:
    """The paper's starting values and step sizes.

    Args:
        features: Of all views, ``(n * v, D)``.
        means: Of every picture over its views, ``(n, D)``.
        labels: Of the pictures, ``(n,)``.
        text: Unit rows, ``(C, D)``.
    """
    belongs = F.one_hot(labels, len(text)).to(means.dtype)
    cosines = (means * text[labels]).sum(1)
    per_class = (belongs.T @ cosines) / belongs.sum(0)
    count = len(features)
    # 1/4 bounds the curvature p (1 - p) of one logit; all classes move at once, where 1/2 does: this is twice the safe
    # step, the largest that still cannot raise the loss.
    widest = torch.linalg.eigvalsh(features.T @ features)[-1]
    largest = ((features @ text.T) ** 2).sum(0).max()
    return Start(
        weights=belongs.T @ means,
        alpha=SPREAD * float(per_class.mean()),
        weight_step=float(4 * count / widest),
        alpha_step=float(count / (4 * largest)),
    )


def fit(
    features: Tensor, labels: Tensor, text: Tensor, start: Start, *, rounds: int = ROUNDS, momentum: float = MOMENTUM
) -> tuple[Tensor, Tensor, list[float]]:
    """Weights ``(C, D)``, alphas ``(C,)`` and the loss before every round.

    Args:
        features: Unit rows, ``(n, D)``.
        labels: ``(n,)``.
        text: Unit rows, ``(C, D)``.
        start: Where to begin, and the step sizes.
        rounds: Full-batch updates.
        momentum: Of the weights; at 0 the loss never rises.
    """
    weights, alphas = start.weights.clone(), text.new_full((len(text),), start.alpha)
    truth, cosines = F.one_hot(labels, len(text)).to(features.dtype), features @ text.T
    speed = torch.zeros_like(weights)
    losses: list[float] = []
    for number in range(1, rounds + 1):
        logits = features @ weights.T + alphas * cosines
        losses.append(float(F.cross_entropy(logits, labels)))
        slope = (logits.softmax(1) - truth) / len(features)
        speed = momentum * speed + slope.T @ features
        weights -= start.weight_step * speed
        if number % CYCLE == 0:
            # Blocks in turn: the other block is as this round left it.
            if momentum == 0:
                slope = ((features @ weights.T + alphas * cosines).softmax(1) - truth) / len(features)
            alphas -= start.alpha_step * (slope * cosines).sum(0)
    return weights, alphas, losses
