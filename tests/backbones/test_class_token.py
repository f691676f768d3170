import pytest
import torch
from tests.backbones.test_prefix import layout, shown, upper_weights
from torch import nn

from kusabi.backbones.class_token import class_token_alone
from kusabi.backbones.prefix import enter, finish

POOL_ALL = ("siglip", "siglip2", "align", "siglip_vision_model+bert")


def probed(backbone, states, layer, weights):
    """Embeddings and the gradients of the upper weights."""
    for weight in weights:
        weight.requires_grad_(True)
    try:
        features = finish(backbone, states, layer)
        probe = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad((features @ probe).sum(), weights, allow_unused=True)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    return features.detach(), gradients


def test_features_and_gradients_are_those_of_the_whole_block(loaded, kind):
    backbone = loaded(kind)
    last = len(backbone.blocks["vision"]) - 1
    for layer in range(last + 1):
        states, weights = enter(backbone, shown(backbone), layer), upper_weights(backbone, layer)
        features, gradients = probed(backbone, states, layer, weights)
        with class_token_alone(backbone) as alone:
            fewer, same = probed(backbone, states, layer, weights)
        assert alone == (kind not in POOL_ALL), "each family that pools a class token is known"
        torch.testing.assert_close(fewer, features, atol=2e-6, rtol=1e-5)
        largest = max(gradient.abs().max() for gradient in gradients if gradient is not None)
        for one, other in zip(gradients, same, strict=True):
            if one is not None:
                torch.testing.assert_close(other, one, atol=float(1e-5 * largest), rtol=1e-4)


def test_the_last_block_works_on_one_token(loaded, kind):
    backbone, widths = loaded(kind), []
    block = backbone.module.get_submodule(backbone.blocks["vision"][-1])

    def note(_linear, args):
        widths.append(args[0].shape[-2])

    hooks = [one.register_forward_pre_hook(note) for one in block.modules() if isinstance(one, nn.Linear)]
    with torch.no_grad(), class_token_alone(backbone) as alone:
        finish(backbone, enter(backbone, shown(backbone), 0), 0)
    for hook in hooks:
        hook.remove()
    if alone:
        assert sorted(widths)[:-2] == [1] * (len(widths) - 2), "keys and values alone need all tokens"


def test_no_trace_is_left_also_after_an_error(loaded, kind):
    backbone = loaded(kind)
    before, pixels = layout(backbone.module), shown(backbone)
    expected = backbone.embed_images(pixels)
    with pytest.raises(ZeroDivisionError), class_token_alone(backbone):
        1 / 0  # noqa: B018  # the error is the point
    assert layout(backbone.module) == before
    assert torch.equal(backbone.embed_images(pixels), expected)
    assert not any("forward" in vars(one) for one in backbone.module.modules())


def test_an_interruption_on_the_way_in_is_what_comes_out(loaded, monkeypatch):
    backbone = loaded("clip")
    before = layout(backbone.module)

    def interrupted(_attention):
        raise KeyboardInterrupt

    monkeypatch.setattr("kusabi.backbones.class_token._asked_once", interrupted)
    with pytest.raises(KeyboardInterrupt), class_token_alone(backbone):
        pass
    assert layout(backbone.module) == before
