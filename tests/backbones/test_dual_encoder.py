import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from kusabi.backbones.digest import module_digest
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.families import FAMILIES
from kusabi.backbones.licence import read_licence
from kusabi.backbones.preprocessing import pixels
from kusabi.errors import BackboneError

TEXTS = ["a photo of a cat", "scratched metal plate with a red dent", "犬"]


def pictures(count=2, side=40):
    random = np.random.default_rng(5)
    return [Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(count)]


def own_logits(folder, images, texts):
    """Logits of the model's own forward, inputs made by its own processor and tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    architecture = FAMILIES[config["model_type"]].architecture
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    shown = AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
    sigmoid = "siglip" in config["model_type"]
    padding = {"padding": "max_length", "max_length": 10} if sigmoid else {"padding": True}
    tokens = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", **padding)
    if architecture in ("CLIPModel", "SiglipModel", "Siglip2Model", "MetaClip2Model"):
        tokens.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**shown, **tokens).logits_per_image


def test_logits_are_those_of_the_models_own_forward(loaded, tiny, kind):
    backbone = loaded(kind)
    shown = pixels(pictures(), backbone.preprocessing)
    with torch.no_grad():
        images, texts = backbone.embed_images(shown), backbone.embed_texts(TEXTS)
    ours = backbone.scale * images @ texts.T + backbone.bias
    expected = own_logits(tiny(kind), pictures(), TEXTS)
    assert torch.allclose(ours, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-3, "logits that do not vary prove nothing"


def test_everything_is_frozen_and_named_as_in_the_module(loaded, kind):
    backbone = loaded(kind)
    assert not backbone.module.training
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert {name for name, _ in backbone.module.named_parameters()} <= set(backbone.tensor_digests)
    assert set(backbone.tensor_digests) == set(backbone.module.state_dict())
    for tower in ("vision", "text"):
        blocks = [backbone.module.get_submodule(name) for name in backbone.blocks[tower]]
        assert len(blocks) >= 2 and len({type(block) for block in blocks}) == 1


def test_buffers_that_are_not_saved_are_right_after_loading(loaded, kind):
    backbone = loaded(kind)
    fresh = type(backbone.module)(backbone.module.config)
    saved = set(backbone.module.state_dict())
    loaded = dict(backbone.module.named_buffers())
    for name, buffer in fresh.named_buffers():
        assert name in saved or torch.equal(loaded[name], buffer), name


def test_half_precision_embeds_to_finite_unit_rows_near_full_precision(loaded, kind):
    dtype = "float16" if kind in ("clip", "align") else "bfloat16"
    half, full = loaded(kind, dtype=dtype), loaded(kind)
    shown = pixels(pictures(), half.preprocessing)
    with torch.no_grad():
        for ours, exact in (
            (half.embed_images(shown), full.embed_images(shown)),
            (half.embed_texts(TEXTS), full.embed_texts(TEXTS)),
        ):
            assert ours.dtype == torch.float32 and torch.isfinite(ours).all()
            assert torch.allclose(ours.norm(dim=-1), torch.ones(len(ours)), atol=1e-5)
            assert (ours * exact).sum(-1).min() > 0.98
    assert half.dtype == getattr(torch, dtype) == next(half.module.parameters()).dtype
    assert (half.scale, half.bias) == (full.scale, full.bias)
    assert (half.digest, half.tensor_digests) == (full.digest, full.tensor_digests)


def test_embedding_changes_nothing(loaded, kind):
    backbone = loaded(kind)
    before = module_digest(backbone.module)
    with torch.no_grad():
        backbone.embed_images(pixels(pictures(), backbone.preprocessing))
        backbone.embed_texts(TEXTS)
    assert module_digest(backbone.module) == before


def test_a_picture_of_another_size_is_taken_where_positions_interpolate(loaded, kind):
    backbone = loaded(kind, input_size=48)
    rows = backbone.embed_images(pixels(pictures(), backbone.preprocessing))
    assert backbone.preprocessing.size == 48 and rows.shape[0] == 2 and torch.isfinite(rows).all()


def test_the_card_is_plain_data(tiny):
    card = load_backbone(tiny("dinov2+bert"), fit="squash").card()
    assert json.loads(json.dumps(card)) == card
    assert card["family"] == "vision-text-dual-encoder" and card["layers"] == {"vision": 3, "text": 2}
    assert card["preprocessing"]["fit"] == "squash" and card["revision"] is None and card["licence"] is None
    assert "/" not in card["source"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: house-rules\n---\n", "house-rules"),
        ("---\nlicense: unknown\n---\n", "bsd-3-clause"),
    ],
)
def test_the_card_names_the_licence_that_the_folder_names(copied, card, licence):
    folder = copied()
    (folder / "README.md").write_text(card)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "license": "bsd-3-clause"}))
    assert load_backbone(folder).card()["licence"] == licence == read_licence(folder).name


def test_the_embedded_model_is_licensed_as_its_card_says(loaded):
    assert loaded("mini").card()["licence"] == "apache-2.0"


def test_loading_prints_nothing_and_leaves_logging_as_it_was(tiny, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_backbone(tiny("clip"))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_size_that_does_not_fit_is_refused_before_weights_are_read(copied):
    folder = copied()
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="input size 30 is not a multiple of the patch size 8; choose 24 or 32"):
        load_backbone(folder, input_size=30)


def test_a_convolution_takes_any_size_but_a_tiny_one(tiny):
    assert load_backbone(tiny("align"), input_size=41).preprocessing.size == 41
    with pytest.raises(BackboneError, match="input size 20 is too small"):
        load_backbone(tiny("align"), input_size=20)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dtype": "int8"}, "dtype 'int8' is not known; choose float32"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here"),
        ({"fit": "stretch"}, "fit 'stretch' is not known; choose pad"),
        ({"revision": "main"}, "a revision .main. belongs to a Hub id"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(tiny, change, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(tiny("clip"), **change)


def test_an_incomplete_model_is_refused_naming_what_is_missing(copied):
    from safetensors.torch import load_file, save_file

    folder = copied()
    tensors = load_file(folder / "model.safetensors")
    gone = [name for name in tensors if "visual_projection" in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in gone}, folder / "model.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensors are missing from the weights: visual_projection\.weight"):
        load_backbone(folder)


def test_weights_of_other_shapes_are_refused(copied):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 13
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="the model cannot be loaded as CLIPModel"):
        load_backbone(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_folder_without_any_tokenizer_is_refused_rather_than_given_an_empty_one(copied, kind):
    folder = copied(kind)
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(BackboneError, match="no tokenizer here"):
        load_backbone(folder)


def test_a_missing_or_unpaddable_tokenizer_is_refused(copied):
    folder = copied()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BackboneError, match="the tokenizer has no padding token"):
        load_backbone(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match="no tokenizer here"):
        load_backbone(folder)


def test_code_that_comes_with_a_supported_model_is_never_run(copied):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert load_backbone(folder).family == "clip"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("size", [84, 224])
def test_the_embedded_model_reads_english_and_japanese_at_any_resolution(size):
    backbone = load_backbone("mini", input_size=size)
    assert backbone.source == "mini" and backbone.family == "vision-text-dual-encoder"
    with torch.no_grad():
        texts = backbone.embed_texts(["a photo of a cat", "猫の写真", "a scratch"])
        images = backbone.embed_images(pixels(pictures(side=300), backbone.preprocessing))
    assert texts.shape == (3, images.shape[1]) and images.shape[0] == 2
    for rows in (texts, images):
        assert torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-5)
    assert texts[0] @ texts[1] < 0.999 and texts[0] @ texts[2] < 0.999
