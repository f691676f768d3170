"""How much of what was learned is kept: final scales from cross-validated retraining on the support set.

Accuracy on the pictures that were trained on always says: all of it. So the whole training is done again on one half of
the support pictures and judged on the other, both ways round. With one picture a class nothing can be held out, and a
fixed prior decides.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.attach import attached
from kusabi.training.learn import Learned, Setting, learn, rescale
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features

ALPHAS = (0.0, 0.5, 1.0)
HEAD_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRIOR = (0.5, 1.0)  # values, classifier: at one shot
FOLDS = 2


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
    safety = setting.spec.safety
    fixed = (safety.alpha, safety.head_alpha)
    if "auto" not in fixed:
        return Scales(float(fixed[0]), float(fixed[1]), {})
    folds = picture_folds(views)
    if folds is None:
        alpha, head_alpha = (
            prior if asked == "auto" else float(asked) for asked, prior in zip(fixed, PRIOR, strict=True)
        )
        return Scales(alpha, head_alpha, {})
    grid = [
        (alpha, head_alpha)
        for alpha in (ALPHAS if fixed[0] == "auto" else (float(fixed[0]),))
        for head_alpha in (
            HEAD_ALPHAS
            if fixed[1] == "auto" and setting.spec.adapter.head != "text"
            else (1.0 if fixed[1] == "auto" else float(fixed[1]),)
        )
    ]
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
