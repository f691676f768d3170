"""The classifier an adapter carries: one vector a class, an offset, and a temperature.

Text embeddings decide where class names mean something to the model; where they do not (a firm's own defect codes),
the support pictures must. Both live in one linear map: ``text + displacement``; displacement and offset zero at gain
one is exactly the zero-shot classifier, and scaling all three towards zero goes back to it in a straight line.
"""

import math

import torch
from torch import Tensor, nn


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
