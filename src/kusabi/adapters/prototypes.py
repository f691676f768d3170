"""The classifier an adapter carries: one vector a class, an offset, and a temperature.

Text embeddings decide where class names mean something to the model; where they do not (a firm's own defect codes),
the support pictures must. Both live in one linear map: ``text + displacement``; displacement and offset zero at gain
one is exactly the zero-shot classifier, and scaling all three towards zero goes back to it in a straight line.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRIOR = 4.0  # a text embedding counts as much as this many labelled pictures, where nothing can be cross-validated


class Prototypes(nn.Module):
    """Linear classifier on unit image embeddings, around the text embeddings.

    Args:
        text: Text embeddings of the classes, shape ``(C, D)``, unit rows.
        scale: The backbone's own inverse temperature.
        bias: The backbone's own logit bias (sigmoid families); it never changes a ranking.
    """

    text: Tensor
    base_scale: Tensor
    bias: Tensor

    def __init__(self, text: Tensor, scale: float, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("text", text.detach().clone().float())
        self.register_buffer("base_scale", torch.tensor(float(scale)))
        self.register_buffer("bias", torch.tensor(float(bias)))
        self.displacement = nn.Parameter(torch.zeros_like(self.text))
        self.offset = nn.Parameter(torch.zeros(len(self.text)))
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits ``(B, C)`` of unit image embeddings ``(B, D)``; ``text`` stands in for the stored embeddings."""
        directions = (self.text if text is None else text) + self.displacement
        cosines = images.float() @ directions.T + self.offset
        return self.base_scale * self.log_gain.exp() * cosines + self.bias

    @torch.no_grad()
    def place(self, weights: Tensor, offsets: Tensor, scale: float, text: Tensor | None = None) -> None:
        """Become ``scale * (x @ weights.T + offsets)``, ``(C, D)`` and ``(C,)``, around ``text`` or the stored one."""
        self.displacement.copy_(weights - (self.text if text is None else text))
        self.offset.copy_(offsets)
        self.log_gain.fill_(math.log(scale / float(self.base_scale)))


def blended(text: Tensor, means: Tensor, share: float) -> Tensor:
    """Unit vectors between text and support means ``(C, D)``; a class whose mean is all zero keeps its text."""
    mixed = F.normalize((1 - share) * text + share * means, dim=-1)
    return torch.where(means.any(-1, keepdim=True), mixed, text)


def support_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Unit mean per class ``(C, D)`` of unit features ``(n, D)``; zero for a class without a picture."""
    sums = torch.zeros(classes, features.shape[1], dtype=features.dtype, device=features.device)
    return F.normalize(sums.index_add_(0, labels, features), dim=-1)


def prior_share(shots: int) -> float:
    """Share of the support means where nothing can be cross-validated: ``n / (n + c)``."""
    return shots / (shots + PRIOR)
