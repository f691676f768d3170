"""Full fine-tuning of both towers, and the same between start and end: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""

import torch

from benchmarks.peers.answers import Answers
from benchmarks.peers.in_backbone import HeadKind, Trained, Tuned, answers_of, tuned
from benchmarks.peers.material import Material
from kusabi.backbones.backbone import Backbone

LOGITS = ("logit_scale", "logit_bias", "temperature")  # the model's own: everyone answers at the same temperature
SHARE = 0.5  # of the tuned weights, the paper's recommendation where nothing can be searched


def full_fine_tuning(material: Material, head: HeadKind = "text") -> Answers:
    """Every weight learns."""
    return answers_of(material, tuned("full", material, everything, head))


def wise_ft(material: Material, head: HeadKind = "text", share: float = SHARE) -> Answers:
    """Every weight learns, then goes back part of the way in a straight line."""
    model = tuned("full", material, everything, head)
    interpolate(material.backbone, model, share)
    return answers_of(material, model)


def everything(backbone: Backbone) -> Trained:
    """All parameters but those of the logits."""
    return Trained([p for name, p in backbone.module.named_parameters() if name not in LOGITS])


@torch.no_grad()
def interpolate(frozen: Backbone, model: Tuned, share: float) -> None:
    """Weights become ``(1 - share)`` frozen plus ``share`` tuned.

    Args:
        frozen: Where the tuning began.
        model: Changed in place.
        share: Of the tuned weights, 0 to 1; both ends are exact.
    """
    first = dict(frozen.module.named_parameters())
    for name, parameter in model.backbone.module.named_parameters():
        parameter.copy_(torch.lerp(first[name], parameter, share))
