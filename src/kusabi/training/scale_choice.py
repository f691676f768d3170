"""How much of what was learned is kept: final scales from cross-validated retraining on the support set.

Accuracy on the pictures that were trained on always says: all of it. So the whole training is done again on one half of
the support pictures and judged on the other, both ways round. With one picture a class nothing can be held out, and the
prior decides: ``n / (n + 4)`` at n shots. On the development tasks a half had the best mean of what was measured
(``benchmarks/few_label_safety.py``).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.attach import attached
from kusabi.training.learn import Learned, Setting, learn, rescale
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features

ALPHAS = (0.0, 0.5, 1.0)
HEAD_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FOLDS = 2
PRIOR = 4  # shots at which half of what was learned is kept


@dataclass(frozen=True)
class Scales:
    """Final scales; ``losses`` are the held-out mean log-losses in nats of every pair that was tried."""

    alpha: float
    head_alpha: float
    losses: dict[tuple[float, float], float]


def choose_scales(setting: Setting, views: Views, progress: Callable[[int, int], None] | None = None) -> Scales:
    """The scales that a spec fixes, or those of the lowest held-out loss; ties to the larger.

    Args:
        setting: What the trainings share.
        views: The support set.
        progress: Told (done, total) trainings.
    """
    safety, prior = setting.spec.safety, setting.shots / (setting.shots + PRIOR)
    folds = picture_folds(views) if "auto" in (safety.alpha, safety.head_alpha) else None
    alphas, head_alphas = _candidates(safety.alpha, prior, ALPHAS), _candidates(safety.head_alpha, 1.0, HEAD_ALPHAS)
    if setting.spec.adapter.head == "text":
        head_alphas = head_alphas[-1:]
    if folds is None:
        return Scales(prior if safety.alpha == "auto" else alphas[-1], head_alphas[-1], {})
    grid = list(product(alphas, head_alphas))
    losses = dict.fromkeys(grid, 0.0)
    for number in range(FOLDS):
        inside, outside = views.only(folds != number), views.only(folds == number)
        learned = learn(setting, inside)
        for alpha, head_alpha in grid:
            losses[alpha, head_alpha] += _loss(setting, outside, learned, alpha, head_alpha)
        if progress:
            progress(number + 1, FOLDS)
    best = min(losses, key=lambda pair: (losses[pair], -pair[0], -pair[1]))
    return Scales(*best, {pair: loss / (int(views.pictures.max()) + 1) for pair, loss in losses.items()})


def _candidates(
    asked: float | Literal["prior", "auto"], prior: float, all_of_them: tuple[float, ...]
) -> tuple[float, ...]:
    return all_of_them if asked == "auto" else (prior if asked == "prior" else asked,)


def picture_folds(views: Views) -> Tensor | None:
    """Fold ``(n * v,)`` of every view: pictures of a class are dealt out in turn; None where a class has but one."""
    folds = torch.zeros_like(views.pictures)
    for label in views.labels.unique().tolist():
        of_class = views.pictures[views.labels == label].unique()
        if len(of_class) < FOLDS:
            return None
        for number, picture in enumerate(of_class.tolist()):
            folds[views.pictures == picture] = number % FOLDS
    return folds


@torch.no_grad()
def _loss(setting: Setting, views: Views, learned: Learned, alpha: float, head_alpha: float) -> float:
    """Summed log-loss of the pictures themselves, nats."""
    one = replace(learned, parts=copy.deepcopy(learned.parts), prototypes=copy.deepcopy(learned.prototypes))
    rescale(one, alpha, head_alpha)
    pictures = views.first()
    with attached(setting.backbone.module, *one.parts):
        text = class_texts(setting.backbone, setting.prompts) if "text" in setting.plan.first_layer else None
        logits = one.prototypes(adapted_features(setting.backbone, pictures), text)
    return float(F.cross_entropy(logits.double(), pictures.labels, reduction="sum"))
