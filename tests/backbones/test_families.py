import pytest

from kusabi.backbones.families import FAMILIES, family_of
from kusabi.errors import BackboneError


def dual(vision, text):
    towers = {"vision_config": {"model_type": vision}, "text_config": {"model_type": text}}
    return {"model_type": "vision-text-dual-encoder", **towers}


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"vision-text-dual-encoder"}))
def test_a_supported_kind_is_found(kind):
    assert family_of({"model_type": kind}, "here").model_type == kind


@pytest.mark.parametrize("kind", ["llava", "clip_vision_model", "CLIP", None, ["clip"], 3])
def test_any_other_kind_is_refused_by_name_with_what_is_supported(kind):
    with pytest.raises(BackboneError) as raised:
        family_of({"model_type": kind}, "models/some")
    assert str(raised.value).startswith(f"models/some: model type {kind!r} is not supported")
    assert all(name in str(raised.value) for name in FAMILIES)


def test_a_dual_encoder_is_laid_out_as_its_towers_are():
    family = family_of(dual("dinov2", "xlm-roberta"), "here")
    assert (family.vision_blocks, family.resizing) == ("vision_model.encoder.layer", "built in")
    assert family.shifted_positions
    family = family_of(dual("vit", "bert"), "here")
    assert (family.vision_blocks, family.resizing) == ("vision_model.layers", "flag")
    assert not family.shifted_positions


@pytest.mark.parametrize(
    "config", [dual("swin", "bert"), dual("vit", "gpt2"), {"model_type": dual("", "")["model_type"]}]
)
def test_a_dual_encoder_of_unknown_towers_is_refused_naming_both(config):
    with pytest.raises(
        BackboneError, match=r"a dual encoder of .* is not supported; supported vision towers: .*dinov2"
    ):
        family_of(config, "here")
