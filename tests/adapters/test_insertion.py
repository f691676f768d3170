import pytest
import torch
from torch import nn

from kusabi.adapters.insertion import insertion_points, output_width, source_of
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import AdapterError

PLAIN, BERT = ("self_attn", "mlp"), ("attention.output.dense", "output.dense")
VIT, DINO = ("attention", "mlp"), ("layer_scale1", "layer_scale2")
LAID_OUT = {
    "clip": (PLAIN, PLAIN),
    "siglip": (PLAIN, PLAIN),
    "siglip2": (PLAIN, PLAIN),
    "metaclip_2": (PLAIN, PLAIN),
    "altclip": (PLAIN, BERT),
    "chinese_clip": (PLAIN, BERT),
    "align": (None, BERT),
    "vit+bert": (VIT, BERT),
    "deit+roberta": (VIT, BERT),
    "dinov2+bert": (DINO, BERT),
    "dinov2_with_registers+xlm-roberta": (DINO, BERT),
    "clip_vision_model+camembert": (PLAIN, BERT),
    "siglip_vision_model+bert": (PLAIN, BERT),
}


@pytest.mark.parametrize("kind", LAID_OUT)
def test_points_of_every_family_are_where_the_residual_sums_are_fed(tiny, kind):
    backbone = load_backbone(tiny(kind))
    pictures = torch.linspace(-1, 1, 3 * backbone.input_sizes.own**2).sin().view(1, 3, *[backbone.input_sizes.own] * 2)
    for tower, parts in zip(("vision", "text"), LAID_OUT[kind], strict=True):
        blocks = backbone.blocks[tower]
        if parts is None:
            continue
        both = insertion_points(backbone.module, blocks, "both")
        assert list(both) == [f"{block}.{part}" for block in blocks for part in parts]
        assert set(both.values()) == {16}
        for part, where in zip(parts, ("attention", "mlp"), strict=True):
            alone = insertion_points(backbone.module, blocks, where)
            assert list(alone) == [f"{block}.{part}" for block in blocks]
        # Adding one to the output of the MLP's point adds one to the residual sum: to what the block gives, or to what
        # its last norm is given.
        block = backbone.module.get_submodule(blocks[0])
        normed = getattr(getattr(block, "output", None), "LayerNorm", None)
        seen = []
        watched = (
            block.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out))
            if normed is None
            else normed.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        )
        point = backbone.module.get_submodule(f"{blocks[0]}.{parts[1]}")
        for more in (0.0, 1.0):
            moved = point.register_forward_hook(lambda _, args, out, more=more: out + more)
            backbone.embed_images(pictures) if tower == "vision" else backbone.embed_texts(["a red cat"])
            moved.remove()
        watched.remove()
        assert torch.allclose(seen[1], seen[0] + 1, atol=1e-5)


def test_a_parallel_part_reads_what_the_sublayer_is_given(tiny):
    module = load_backbone(tiny("dinov2+bert")).module
    vision, text = "vision_model.encoder.layer.1", "text_model.encoder.layer.0"
    assert source_of(module, f"{vision}.layer_scale1") == f"{vision}.attention"
    assert source_of(module, f"{vision}.layer_scale2") == f"{vision}.mlp"
    assert source_of(module, f"{text}.attention.output.dense") == f"{text}.attention"
    assert source_of(module, f"{text}.output.dense") == f"{text}.intermediate"
    for itself in (f"{vision}.mlp", f"{text}.intermediate.dense", "text_model.pooler.dense"):
        assert source_of(module, itself) == itself


def test_plain_encoder_layers_are_blocks_too(towers, blocks):
    module = towers()
    assert insertion_points(module, blocks["text"], "both") == {
        "text.0.self_attn": 8, "text.0.linear2": 8, "text.1.self_attn": 8, "text.1.linear2": 8
    }  # fmt: skip
    assert source_of(module, "text.0.linear2") == "text.0.linear1"


def test_blocks_without_the_sublayers_are_refused_all_at_once(tiny):
    backbone = load_backbone(tiny("align"))
    with pytest.raises(AdapterError) as refusal:
        insertion_points(backbone.module, [*backbone.blocks["vision"], "text_model.encoder.layer.7"], "mlp")
    message = str(refusal.value)
    for block in backbone.blocks["vision"]:
        assert f"{block}: no mlp found among " in message
    assert "depthwise_conv, squeeze_excite, projection" in message
    assert "text_model.encoder.layer.7: no mlp found among no modules at all" in message
    with pytest.raises(AdapterError, match="no block is named"):
        insertion_points(backbone.module, [], "both")


def test_the_last_linear_layer_says_how_wide_an_output_is():
    assert output_width(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7))) == 7
    assert output_width(nn.LayerNorm(6)) == 6
    assert output_width(nn.Identity()) is None
