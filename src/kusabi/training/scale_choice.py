"""How much of what was learned is kept: final scales from cross-validated retraining on the support set.

Accuracy on the pictures that were trained on always says: all of it. So the whole training is done again on one half of
the support pictures and judged on the other, both ways round. With one picture a class nothing can be held out, and the
prior decides: ``n / (n + 4)`` at n shots. Values that learned against cross-fitted classifiers are kept whole
(``cross_fit.py``): on the development tasks every smaller scale cost accuracy (``benchmarks/few_label_safety.py``).
With one picture a class they learned against the texts, and ``n`` is the pictures that these are worth.
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
from kusabi.training.anchors import text_pictures
from kusabi.training.cross_fit import picture_folds
from kusabi.training.learn import Learned, Setting, arrays_of, learn, rescale
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
    safety, prior = setting.spec.safety, _prior(setting, views)
    folds = halves(views) if "auto" in (safety.alpha, safety.head_alpha) else None
    alphas, head_alphas = _candidates(safety.alpha, prior, ALPHAS), _candidates(safety.head_alpha, 1.0, HEAD_ALPHAS)
    if setting.spec.adapter.head == "text":
        head_alphas = head_alphas[-1:]
    if folds is None:
        return Scales(prior if safety.alpha == "auto" else alphas[-1], head_alphas[-1], {})
    grid = list(product(alphas, head_alphas))
    losses = dict.fromkeys(grid, 0.0)
    for number in range(FOLDS):
        inside, outside = views.only(folds != number + 1), views.only(folds == number + 1)
        learned = learn(setting, inside)
        for alpha, head_alpha in grid:
            losses[alpha, head_alpha] += _loss(setting, (inside, outside), learned, alpha, head_alpha)
        if progress:
            progress(number + 1, FOLDS)
    best = min(losses, key=lambda pair: (losses[pair], -pair[0], -pair[1]))
    return Scales(*best, {pair: loss / (int(views.pictures.max()) + 1) for pair, loss in losses.items()})


def _prior(setting: Setting, views: Views) -> float:
    """Values that learned against class means which had not seen the picture are kept whole."""
    crossed = setting.spec.safety.cross_fit > 1 and setting.spec.adapter.head != "text"
    if crossed and setting.shots > 1:
        return 1.0
    text = setting.text.double().cpu().numpy()
    worth = text_pictures(*arrays_of(views), text) if crossed else setting.shots
    return worth / (worth + PRIOR)


def _candidates(
    asked: float | Literal["prior", "auto"], prior: float, all_of_them: tuple[float, ...]
) -> tuple[float, ...]:
    return all_of_them if asked == "auto" else (prior if asked == "prior" else asked,)


def halves(views: Views) -> Tensor | None:
    """Half ``(n * v,)`` of every view, 1 or 2; None where a class has but one picture."""
    fold = torch.from_numpy(picture_folds(views.labels.cpu().numpy(), views.pictures.cpu().numpy(), FOLDS))
    return fold.to(views.labels.device) if bool(fold.all()) else None


@torch.no_grad()
def _loss(setting: Setting, sides: tuple[Views, Views], learned: Learned, alpha: float, head_alpha: float) -> float:
    """Summed log-loss of the pictures held out, nats; ``sides`` are what was learned from and what was not."""
    one = replace(learned, parts=copy.deepcopy(learned.parts), prototypes=copy.deepcopy(learned.prototypes))
    rescale(setting, sides[0], one, alpha, head_alpha)
    pictures = sides[1].first()
    with attached(setting.backbone.module, *one.parts):
        text = class_texts(setting.backbone, setting.prompts) if "text" in setting.plan.first_layer else None
        logits = one.prototypes(adapted_features(setting.backbone, pictures), text)
    return float(F.cross_entropy(logits.double(), pictures.labels, reduction="sum"))
