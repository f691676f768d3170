"""The classifier an adapter carries: one unit vector a class, and a temperature.

Text embeddings decide where class names mean something to the model; where they do not (a firm's own defect codes),
the means of the support pictures must. Both live in one vector: ``text + displacement``; displacement zero is exactly
the zero-shot classifier.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRIOR = 4.0  # a text embedding counts as much as this many labelled pictures, where nothing can be cross-validated


class Prototypes(nn.Module):
    """Cosine classifier around the text embeddings.

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
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits ``(B, C)`` of unit image embeddings ``(B, D)``; ``text`` stands in for the stored embeddings."""
        return self.base_scale * self.log_gain.exp() * images.float() @ self.directions(text).T + self.bias

    def directions(self, text: Tensor | None = None) -> Tensor:
        """Unit class vectors, shape ``(C, D)``; rows that were never displaced are the text embeddings, bitwise."""
        text = self.text if text is None else text
        moved = F.normalize(text + self.displacement, dim=-1)
        # Training starts at displacement zero too, so a row without one still has to pass its gradient.
        still = (self.displacement == 0).all(-1, keepdim=True) & (not torch.is_grad_enabled())
        return torch.where(still, text, moved)

    @torch.no_grad()
    def place(self, vectors: Tensor, scale: float) -> None:
        """Move to given unit vectors ``(C, D)`` and inverse temperature, as the start of training."""
        self.displacement.copy_(vectors - self.text)
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
