"""One forward of the model in training, over some views."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.class_token import class_token_alone
from kusabi.backbones.prefix import finish
from kusabi.training.cross_fit import CrossFit
from kusabi.training.texts import class_texts
from kusabi.training.views import Views


@dataclass(frozen=True)
class Forward:
    """``features`` ``(B, D)``, unit rows, and ``logits`` ``(B, C)``."""

    features: Tensor
    logits: Tensor


def logits_of(
    backbone: Backbone, views: Views, classifier: Prototypes | CrossFit, prompts: Sequence[Sequence[str]], plan: Plan,
    rows: Sequence[int],
) -> Forward:  # fmt: skip
    """Features and logits of some views, differentiable in whatever the plan adapts."""
    if views.layer is None:
        images = views.features[torch.as_tensor(rows, device=views.features.device)]
    else:
        with class_token_alone(backbone):
            images = finish(backbone, views.batch(rows), views.layer)
    text = class_texts(backbone, prompts) if "text" in plan.first_layer else None
    if isinstance(classifier, CrossFit):
        return Forward(images, classifier(images, text, rows))
    return Forward(images, classifier(images, text))
