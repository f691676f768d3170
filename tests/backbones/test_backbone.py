import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.backbones.backbone import TEXTS_AT_ONCE

LONG = " ".join(["scratched metal plate"] * 20)


def test_texts_of_different_lengths_embed_together_as_they_do_alone(loaded, kind):
    backbone = loaded(kind)
    texts = ["cat", "a photo of the red dog", "a blue dent with a photo of the cat", "犬"]
    with torch.no_grad():
        together = backbone.embed_texts(texts)
        alone = torch.cat([backbone.embed_texts([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_a_text_that_is_too_long_is_cut_and_not_an_error(loaded, kind):
    backbone = loaded(kind)
    with torch.no_grad():
        rows = backbone.embed_texts([LONG, LONG + " cat"])
    assert torch.isfinite(rows).all()
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=1e-6)  # rows of a batch may differ in their last bits


def test_prompts_are_padded_to_the_longest_or_to_the_full_length(loaded, kind):
    backbone = loaded(kind)
    seen = []
    hook = backbone.module.get_submodule("text_model").register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        backbone.embed_texts(["cat", "red dog"])
    finally:
        hook.remove()
    assert seen == [(2, 10)] if backbone.full_length else seen[0][1] <= 4


def test_many_texts_are_read_in_blocks(loaded):
    backbone = loaded("clip")
    texts = [f"a photo of the {word}" for word in ("cat", "dog", "plate")] * (TEXTS_AT_ONCE // 3 + 2)
    with torch.no_grad():
        rows = backbone.embed_texts(texts)
    assert len(rows) == len(texts) > TEXTS_AT_ONCE
    assert torch.allclose(rows[-3:], rows[:3], atol=1e-6)


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_embeddings_are_differentiable_in_the_weights(loaded, kind, tower):
    backbone = loaded(kind)
    weight = next(w for w in backbone.module.get_submodule(backbone.blocks[tower][0]).parameters() if w.ndim > 1)
    size = backbone.preprocessing.size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    weight.requires_grad_(True)
    try:
        rows = backbone.embed_images(pixels) if tower == "vision" else backbone.embed_texts(["cat", "red dog"])
        (gradient,) = torch.autograd.grad(rows[:, 0].sum(), weight)
    finally:
        weight.requires_grad_(False)
    assert gradient.abs().max() > 0


def test_rows_stay_exact_under_autocast(loaded, kind):
    backbone = loaded(kind)
    size = backbone.preprocessing.size
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for rows in (backbone.embed_images(torch.randn(2, 3, size, size)), backbone.embed_texts(["cat"])):
            assert rows.dtype == torch.float32
            assert torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-5)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 6))
def test_any_whole_number_of_patches_is_taken(loaded, count):
    for kind in ("clip", "siglip2", "dinov2+bert"):
        backbone = loaded(kind)
        rows = backbone.embed_images(torch.ones(1, 3, 8 * count, 8 * count))
        assert torch.isfinite(rows).all()
