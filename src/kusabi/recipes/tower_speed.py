"""How many pictures a second the image tower takes, on this machine, now."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from kusabi.backbones.backbone import Backbone
from kusabi.backbones.preprocessing import pixels
from kusabi.recipes.clock import now
from kusabi.recipes.environment import processor

BATCH, WARM_UP, REPEATS = 16, 2, 7


@torch.no_grad()
def tower_speed(backbone: Backbone, images: Sequence[Image.Image]) -> dict[str, Any]:
    """Median over ``REPEATS`` forwards of one batch, after ``WARM_UP`` others; reading and scaling are not timed.

    Args:
        backbone: The model.
        images: At least one picture; they are repeated to fill a batch.

    Returns:
        Plain data: ``pictures_per_second``, ``lowest``, ``highest``, ``batch``, ``repeats``, ``warm_up``,
        ``input_size``, ``threads``, ``device``, ``processor``.
    """
    shown = [images[place % len(images)] for place in range(BATCH)]
    batch = pixels(shown, backbone.preprocessing).to(backbone.device, backbone.dtype)
    seconds = [_seconds(backbone, batch) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    speeds = sorted(BATCH / one for one in seconds)
    return {
        "pictures_per_second": statistics.median(speeds),
        "lowest": speeds[0],
        "highest": speeds[-1],
        "batch": BATCH,
        "repeats": REPEATS,
        "warm_up": WARM_UP,
        "input_size": backbone.preprocessing.size,
        "threads": torch.get_num_threads(),
        "device": str(backbone.device),
        "processor": processor(),
    }


def _seconds(backbone: Backbone, batch: torch.Tensor) -> float:
    began = now(backbone.device)
    backbone.embed_images(batch)
    return now(backbone.device) - began
