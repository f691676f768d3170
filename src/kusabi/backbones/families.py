"""What two-tower models have in common, and where each family differs: one table, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kusabi.errors import BackboneError

Resizing = Literal["flag", "built in", "patches", "any"]
"""How a vision tower takes pictures of another size than its own: told by ``interpolate_pos_encoding`` (flag), without
being told (built in), cut into patches by us (patches), or as a convolution that has no position embeddings (any)."""


@dataclass(frozen=True)
class Family:
    """How one kind of model is laid out.

    ``vision_blocks`` and ``text_blocks`` are dotted names of module lists, bottom block first. ``full_length`` families
    pool a padded text position and always read their full length; ``shifted_positions`` count text positions from
    behind the padding index; ``class_token`` vision towers pool their first token and no other.
    """

    model_type: str
    architecture: str
    vision_blocks: str = "vision_model.encoder.layers"
    text_blocks: str = "text_model.encoder.layers"
    resizing: Resizing = "flag"
    similarity: Literal["softmax", "sigmoid"] = "softmax"
    full_length: bool = False
    shifted_positions: bool = False
    class_token: bool = True


_BERT_BLOCKS = "text_model.encoder.layer"

FAMILIES = {
    family.model_type: family
    for family in (
        Family("clip", "CLIPModel"),
        Family("siglip", "SiglipModel", similarity="sigmoid", full_length=True, class_token=False),
        Family(
            "siglip2", "Siglip2Model", resizing="patches", similarity="sigmoid", full_length=True, class_token=False
        ),
        Family("metaclip_2", "MetaClip2Model"),
        Family("altclip", "AltCLIPModel", text_blocks="text_model.roberta.encoder.layers", shifted_positions=True),
        Family("chinese_clip", "ChineseCLIPModel", text_blocks=_BERT_BLOCKS),
        Family(
            "align",
            "AlignModel",
            vision_blocks="vision_model.encoder.blocks",
            text_blocks=_BERT_BLOCKS,
            resizing="any",
            class_token=False,
        ),
        Family("vision-text-dual-encoder", "VisionTextDualEncoderModel", text_blocks=_BERT_BLOCKS),
    )
}

# A dual encoder joins any two towers: these are the ones whose blocks, pooling and sizes are known here.
_VISION_TOWERS: dict[str, tuple[str, Resizing]] = {
    "clip_vision_model": ("vision_model.encoder.layers", "flag"),
    "siglip_vision_model": ("vision_model.encoder.layers", "flag"),
    "vit": ("vision_model.layers", "flag"),
    "deit": ("vision_model.layers", "flag"),
    "dinov2": ("vision_model.encoder.layer", "built in"),
    "dinov2_with_registers": ("vision_model.encoder.layer", "built in"),
}
_TEXT_TOWERS = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}  # shifted positions


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family that a ``config.json`` declares.

    Raises:
        BackboneError: If it is none of the table, naming the kind and what is supported.
    """
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise BackboneError(
            f"{where}: model type {kind!r} is not supported; choose a two-tower model of type "
            f"{', '.join(sorted(FAMILIES))}"
        )
    if kind != "vision-text-dual-encoder":
        return family
    vision, text = (_tower(config, tower) for tower in ("vision_config", "text_config"))
    if vision not in _VISION_TOWERS or text not in _TEXT_TOWERS:
        raise BackboneError(
            f"{where}: a dual encoder of {vision!r} and {text!r} is not supported; supported vision towers: "
            f"{', '.join(_VISION_TOWERS)}; text towers: {', '.join(_TEXT_TOWERS)}"
        )
    blocks, resizing = _VISION_TOWERS[vision]
    return replace(
        family, vision_blocks=blocks, resizing=resizing, shifted_positions=_TEXT_TOWERS[text],
        class_token=vision != "siglip_vision_model",
    )  # fmt: skip


def _tower(config: Mapping[str, Any], name: str) -> str:
    """Model type of one tower, as text; '' where the config names none."""
    tower = config.get(name)
    return str(tower.get("model_type", "")) if isinstance(tower, Mapping) else ""
