"""Tiny seeded models of every family, as folders that save_pretrained writes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

SIDE, PATCH = 24, 8
WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "cat",
    "dog",
    "scratched",
    "metal",
    "plate",
    "with",
    "red",
    "blue",
    "dent",
    "犬",
    "猫",
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """Kind -> folder of a tiny seeded model of it, as save_pretrained writes it."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind.replace("+", "-"))
            _save(kind, made[kind])
        return made[kind]

    return folder


def _save(kind: str, folder: Path) -> None:
    tokenizer = _tokenizer(kind)
    torch.manual_seed(len(kind))
    model = _model(kind, tokenizer)
    with torch.no_grad():  # nothing may be zero or one by birth: a forgotten part would not be missed
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor) if tensor.ndim > 1 else torch.rand_like(tensor)
                tensor.add_(noise * 0.15)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0  # as in every real model; some are reset on loading
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    _image_processor(kind).save_pretrained(folder)


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Whole words; the specials of the family around them: padding is 1 for RoBERTa, the end for CLIP and SigLIP."""
    if kind.startswith("siglip") and "+" not in kind:
        specials, around = ("</s>", "<unk>"), "$A </s>"
        names: dict[str, Any] = {"eos_token": "</s>", "pad_token": "</s>", "model_input_names": ["input_ids"]}
    elif kind in ("clip", "metaclip_2"):
        specials, around = ("<s>", "<unk>", "!", "</s>"), "<s> $A </s>"
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    else:
        specials, around = ("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>"
        names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    words = {word: index for index, word in enumerate((*specials, *WORDS))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ids = [(token, words[token]) for token in ("<s>", "</s>") if token in around.split()]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", model_max_length=64, **names)


def _model(kind: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    vision_kind, _, text_kind = kind.partition("+")
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = {**sizes, "image_size": SIDE, "patch_size": PATCH}
    text = {**sizes, "num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 12}
    text |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if text_kind:
        text |= {"model_type": text_kind, "type_vocab_size": 1}
        vision |= {"model_type": vision_kind}
        config = transformers.VisionTextDualEncoderConfig(
            vision_config=vision, text_config=text, projection_dim=12, logit_scale_init_value=1.7
        )
        return transformers.VisionTextDualEncoderModel(config)
    match kind:
        case "clip":
            name, more = "CLIP", {"projection_dim": 12}
        case "siglip":
            name, more = "Siglip", {}
            text["projection_size"] = 16
            text["max_position_embeddings"] = 10
        case "siglip2":
            name, more = "Siglip2", {}
            text["projection_size"] = 16
            text["max_position_embeddings"] = 10
            del vision["image_size"]
            vision["num_patches"] = (SIDE // PATCH) ** 2
        case "metaclip_2":
            name, more = "MetaClip2", {"projection_dim": 12}
        case "altclip":
            name, more = "AltCLIP", {"projection_dim": 12}
            text["project_dim"] = 14
        case "chinese_clip":
            name, more = "ChineseCLIP", {"projection_dim": 12}
        case "align":
            name, more = "Align", {"projection_dim": 32, "temperature_init_value": 0.3}
            vision = {
                "image_size": 32,
                "width_coefficient": 1.0,
                "depth_coefficient": 1.0,
                "kernel_sizes": [3, 3, 5],
                "in_channels": [32, 16, 24],
                "out_channels": [16, 24, 30],
                "hidden_dim": 64,
                "strides": [1, 1, 2],
                "num_block_repeats": [1, 1, 2],
                "expand_ratios": [1, 6, 6],
            }
        case _:
            raise ValueError(kind)
    config = getattr(transformers, f"{name}Config")(vision_config=vision, text_config=text, **more)
    return getattr(transformers, f"{name}Model")(config)


def _image_processor(kind: str) -> Any:
    square = {"height": SIDE, "width": SIDE}
    match kind.partition("+")[0]:
        case "siglip" | "siglip_vision_model":
            return transformers.SiglipImageProcessorPil(size=square)
        case "siglip2":
            return transformers.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=(SIDE // PATCH) ** 2)
        case "align":
            return transformers.EfficientNetImageProcessorPil(
                size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
            )
        case "vit" | "deit":
            return transformers.ViTImageProcessorPil(size=square)
        case "dinov2" | "dinov2_with_registers":
            return transformers.BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
        case "chinese_clip":
            return transformers.ChineseCLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
        case _:
            return transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
