import pytest
import torch

from kusabi.backbones.digest import module_digest
from kusabi.backbones.prefix import enter, finish


def shown(backbone, count=3, seed=0):
    size = backbone.preprocessing.size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def layout(module):
    """Names, hooks and forwards of all submodules: what an interrupted cut would leave changed."""
    return [
        (name, id(one), len(one._forward_pre_hooks), "forward" in vars(one)) for name, one in module.named_modules()
    ]


def upper_weights(backbone, layer):
    names = backbone.blocks["vision"][layer:]
    return [weight for name in names for weight in backbone.module.get_submodule(name).parameters()]


@pytest.mark.parametrize("input_size", [None, 40])
def test_finishing_what_was_entered_equals_embedding_bitwise_at_every_layer(loaded, kind, input_size):
    backbone = loaded(kind, input_size=input_size)
    pixels = shown(backbone)
    with torch.no_grad():
        expected = backbone.embed_images(pixels)
        for layer in range(len(backbone.blocks["vision"])):
            states = enter(backbone, pixels, layer)
            assert len(states) == 3 and not states.requires_grad
            assert torch.equal(finish(backbone, states, layer), expected), layer
            # Another batch size may round otherwise, no more.
            assert torch.allclose(finish(backbone, states[1:], layer), expected[1:], atol=1e-5)


def test_the_stand_in_pixels_leave_no_trace(loaded, kind):
    backbone = loaded(kind)
    pixels = [shown(backbone, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        first, second = (finish(backbone, enter(backbone, one, 1), 1) for one in pixels)
    assert not torch.allclose(first, second)


def test_gradients_of_the_upper_weights_are_those_of_the_whole_model(loaded, kind):
    backbone = loaded(kind)
    pixels = shown(backbone)
    for layer in range(len(backbone.blocks["vision"])):
        weights = upper_weights(backbone, layer)
        probe = torch.randn(backbone.embed_images(pixels[:1]).shape[1], generator=torch.Generator().manual_seed(1))
        for weight in weights:
            weight.requires_grad_(True)
        try:
            whole = torch.autograd.grad((backbone.embed_images(pixels) @ probe).sum(), weights)
            cut = torch.autograd.grad((finish(backbone, enter(backbone, pixels, layer), layer) @ probe).sum(), weights)
        finally:
            for weight in weights:
                weight.requires_grad_(False)
        assert all(torch.equal(one, other) for one, other in zip(whole, cut, strict=True))
        assert any(one.abs().max() > 0 for one in cut)


def test_under_autocast_the_cut_changes_nothing_either(loaded, kind):
    backbone = loaded(kind)
    pixels = shown(backbone)
    for layer in (0, 2):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected = backbone.embed_images(pixels)
            assert torch.equal(finish(backbone, enter(backbone, pixels, layer), layer), expected)


def test_states_kept_in_half_precision_are_taken(loaded, kind):
    backbone = loaded(kind)
    pixels = shown(backbone)
    with torch.no_grad():
        rows = finish(backbone, enter(backbone, pixels, 1).bfloat16(), 1)
        assert rows.dtype == torch.float32
        assert (rows * backbone.embed_images(pixels)).sum(-1).min() > 0.99


def test_a_half_precision_model_is_cut_bitwise_too(loaded, kind):
    backbone = loaded(kind, dtype="bfloat16")
    pixels = shown(backbone)
    with torch.no_grad():
        states = enter(backbone, pixels, 2)
        assert states.dtype == torch.bfloat16
        assert torch.equal(finish(backbone, states, 2), backbone.embed_images(pixels))


def test_the_model_is_as_before_also_after_an_exception(loaded, kind):
    backbone = loaded(kind)
    before, digest = layout(backbone.module), module_digest(backbone.module)
    pixels = shown(backbone)
    states = enter(backbone, pixels, 1)
    finish(backbone, states, 1)
    with pytest.raises((RuntimeError, ValueError)):
        finish(backbone, states[:, :1] if states.ndim == 4 else states[..., :1], 1)
    with pytest.raises((RuntimeError, ValueError)):
        enter(backbone, pixels[:, :2], 1)
    assert layout(backbone.module) == before
    assert module_digest(backbone.module) == digest


@pytest.mark.parametrize("kind, tokens", [("clip", 1), ("dinov2+bert", 1), ("siglip", 1), ("siglip2", 9)])
def test_one_token_stands_in_for_embeddings_or_as_many_as_a_mask_must_cover(loaded, kind, tokens):
    backbone = loaded(kind)
    states = enter(backbone, shown(backbone), 1)
    seen, convolved = [], []
    embeddings = backbone.module.get_submodule("vision_model.embeddings")
    hook = embeddings.register_forward_hook(lambda _module, _args, output: seen.append(tuple(output.shape[:2])))
    patches = next(module for name, module in embeddings.named_modules() if "patch_embedding" in name)
    other = patches.register_forward_hook(lambda *_: convolved.append(True))
    try:
        finish(backbone, states, 1)
    finally:
        hook.remove()
        other.remove()
    assert seen == [(3, tokens)] and states.shape[1] >= 9
    assert convolved == ([True] if kind == "siglip2" else []), "no convolution for what nobody reads"


def test_blocks_below_the_cut_do_not_run(loaded):
    backbone = loaded("dinov2+bert")
    ran = []
    blocks = [backbone.module.get_submodule(name) for name in backbone.blocks["vision"]]
    hooks = [block.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks)]
    try:
        states = enter(backbone, shown(backbone), 2)
        assert ran == [0, 1]
        finish(backbone, states, 2)
        assert ran == [0, 1, 2]
    finally:
        for hook in hooks:
            hook.remove()


def test_a_layer_that_is_not_there_is_a_programming_error(loaded):
    backbone = loaded("clip")
    with pytest.raises(AssertionError, match="blocks 0 to 2"):
        enter(backbone, shown(backbone), 3)


@pytest.mark.parametrize("size", [84, 224])
def test_the_embedded_model_is_cut_bitwise(loaded, size):
    backbone = loaded("mini", input_size=size)
    pixels = shown(backbone, 2)
    with torch.no_grad():
        expected = backbone.embed_images(pixels)
        for layer in (0, 4, 7):
            assert torch.equal(finish(backbone, enter(backbone, pixels, layer), layer), expected)
