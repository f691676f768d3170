"""What the text tower makes of the class prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.backbones.backbone import Backbone


def class_texts(backbone: Backbone, prompts: Sequence[Sequence[str]]) -> Tensor:
    """One unit row a class, ``(C, D)``: the mean over its prompts; differentiable in an adapted text tower."""
    rows = backbone.embed_texts([prompt for of_class in prompts for prompt in of_class])
    parts = rows.split([len(of_class) for of_class in prompts])
    return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
