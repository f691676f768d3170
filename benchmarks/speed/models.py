"""Seeded models of the size of CLIP's, made on the spot: their weights do not matter for time."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from kusabi.backbones.model_folder import MINI
from kusabi.files import write_bytes

VOCABULARY = 49408
START, UNKNOWN, END = "<|startoftext|>", "<|unknown|>", "<|endoftext|>"

SIZES: dict[str, dict[str, Any]] = {
    "vit-b-16": {"projection": 512, "image_size": 224, "patch_size": 16, "vision": (768, 12, 12), "text": (512, 12, 8)},
    "vit-l-14": {
        "projection": 768, "image_size": 224, "patch_size": 14, "vision": (1024, 24, 16), "text": (768, 12, 12),
    },
    "tiny": {"projection": 16, "image_size": 32, "patch_size": 8, "vision": (16, 4, 2), "text": (16, 2, 2)},
}  # fmt: skip
"""Widths, layers and heads of both towers as CLIP has them; ``tiny`` is for tests."""


def folder_of(size: str, cache: Path) -> Path:
    """The folder of a model: one of ``SIZES``, or ``mini``, the embedded one."""
    if size == "mini":
        return MINI
    folder = cache / "models" / size
    if not (folder / "config.json").exists():
        _make(SIZES[size], folder)
    return folder


def prompts_of(classes: int) -> tuple[tuple[str, ...], ...]:
    """One prompt a class, of the length that real ones have: ten tokens with both ends."""
    return tuple((f"a photo of a part of kind {number}.",) for number in range(classes))


def _make(size: dict[str, Any], folder: Path) -> None:
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": size["image_size"]},
        "crop_size": {"height": size["image_size"], "width": size["image_size"]}, "resample": 3,
        "image_mean": [0.4815, 0.4578, 0.4082], "image_std": [0.2686, 0.2613, 0.2758], "rescale_factor": 1 / 255,
    }  # fmt: skip
    write_bytes(folder / "preprocessor_config.json", json.dumps(processor, indent=1).encode())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(_config(size, tokenizer))
    model.save_pretrained(folder)


def _config(size: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    vision, text = (_tower(*size[tower]) for tower in ("vision", "text"))
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    return CLIPConfig(
        vision_config={**vision, "image_size": size["image_size"], "patch_size": size["patch_size"]},
        text_config={**text, **ends, "vocab_size": VOCABULARY, "max_position_embeddings": 77},
        projection_dim=size["projection"],
    )


def _tower(width: int, layers: int, heads: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": heads}  # fmt: skip


def _tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, with CLIP's two ends around them."""
    words = ("a", "photo", "of", "part", "kind", ".", *map(str, range(1000)))
    known = {word: index for index, word in enumerate((START, UNKNOWN, END, *words), start=VOCABULARY - 2000)}
    inner = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, known[START]), (END, known[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=UNKNOWN, bos_token=START, eos_token=END, pad_token=END, model_max_length=77
    )
