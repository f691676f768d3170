"""Both towers into one plain Hugging Face folder: fp16, at most 48 MB, loaded by AutoModel as any other."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pretraining.vision import EMBEDDING, MEAN, STD

SIDE = 112  # pixels; whatever is asked for between 84 and 224 works
LARGEST = 48_000_000


def build_dual(vision: nn.Module, vision_head: nn.Module, text: nn.Module, text_head: nn.Module, log_scale: float):
    """Join the towers into a ``VisionTextDualEncoderModel``."""
    from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=EMBEDDING, logit_scale_init_value=log_scale
    )
    model = VisionTextDualEncoderModel(config)
    model.vision_model.load_state_dict(vision.state_dict())
    model.text_model.load_state_dict(text.state_dict())
    model.visual_projection.load_state_dict(vision_head.state_dict())
    model.text_projection.load_state_dict(text_head.state_dict())
    with torch.no_grad():
        model.logit_scale.fill_(log_scale)
    return model.eval()


def export(model: nn.Module, tokenizer, folder: Path, card: str, side: int = SIDE) -> None:
    """Write the folder aside, then put it in place at once.

    Args:
        model: The joined towers.
        tokenizer: Of the text tower.
        folder: Where the finished files go; other files there stay.
        card: Text of README.md.
        side: Default input size in pixels, a multiple of 14.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tokenizer.save_pretrained(aside)
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, aside / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict() | {"dtype": "float16", "architectures": ["VisionTextDualEncoderModel"]}
    (aside / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
    (aside / "preprocessor_config.json").write_text(json.dumps(_preprocessor(side), indent=2) + "\n")
    (aside / "README.md").write_text(card)
    size = (aside / "model.safetensors").stat().st_size
    assert size <= LARGEST, f"{size} bytes of weights, allowed are {LARGEST}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(aside.iterdir(), key=lambda p: p.name == "config.json"):
        path.chmod(0o644)
        path.replace(folder / path.name)
    aside.rmdir()


def _preprocessor(side: int) -> dict:
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
