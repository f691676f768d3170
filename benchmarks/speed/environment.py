"""On what the results were made: no dates, no names of machines."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kusabi.recipes.environment import environment as of_everything

BF16_FLAGS = ("amx_bf16", "avx512_bf16")


def environment(device: str) -> dict[str, Any]:
    """Plain data for JSON."""
    facts = {**of_everything(), "peft": version("peft"), "threads": torch.get_num_threads(), "bf16 units": bf16_units()}
    if torch.device(device).type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    return facts


def bf16_units() -> list[str]:
    """What the processor says it has for products in bf16."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return []
    return [flag for flag in BF16_FLAGS if flag in words]
