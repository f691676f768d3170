"""Tuning of small parts that are there already: all LayerNorms, or all biases (BitFit, arXiv 2106.10199)."""

from torch import nn

from benchmarks.peers.answers import Answers
from benchmarks.peers.in_backbone import HeadKind, Trained, answers_of, tuned
from benchmarks.peers.material import Material
from kusabi.backbones.backbone import Backbone
from kusabi.errors import BackboneError


def layer_norm(material: Material, head: HeadKind = "text") -> Answers:
    """Gains and offsets of every LayerNorm of both towers learn."""
    return answers_of(material, tuned("layer_norm", material, layer_norms, head))


def bitfit(material: Material, head: HeadKind = "text") -> Answers:
    """Every bias of both towers learns."""
    return answers_of(material, tuned("bitfit", material, biases, head))


def layer_norms(backbone: Backbone) -> Trained:
    """All LayerNorms, those before the first and after the last block included.

    Raises:
        BackboneError: When the model has none.
    """
    found = [p for module in backbone.module.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()]
    if not found:
        raise BackboneError("LayerNorm tuning: this model has no LayerNorm")
    return Trained(found)


def biases(backbone: Backbone) -> Trained:
    """All parameters named ``bias``; the bias of the logits is none of them."""
    return Trained([p for name, p in backbone.module.named_parameters() if name.rpartition(".")[2] == "bias"])
