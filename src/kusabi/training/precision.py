"""Half precision where it pays: bf16 autocast where the processor has units for it, fp32 elsewhere.

A backbone in half precision trains under autocast to its own dtype: beside its tensors nothing else would fit.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from kusabi.backbones.backbone import Backbone

FUSED, PLAIN = "sdpa", "eager"


def fast_bf16(device: str) -> bool:
    """Say whether bf16 matrix products run in hardware: CUDA since Ampere, or a CPU with AVX512-bf16 or AMX.

    Elsewhere they are emulated, on some processors fifty times slower than fp32.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def resolve(precision: Literal["auto", "bfloat16", "float32"], device: str) -> Literal["bfloat16", "float32"]:
    """What ``auto`` means on this device; other answers are returned as they are."""
    if precision == "auto":
        return "bfloat16" if fast_bf16(device) else "float32"
    return precision


def autocast(precision: str, device: str) -> torch.autocast:
    """A context for ONE forward: autocast keeps the half-precision copy of a weight and would miss the next fold.

    Args:
        precision: ``float32`` (nothing is cast), ``bfloat16`` or ``float16``.
        device: Where the forward runs.
    """
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision != "float32")


_CONFIGS: "weakref.WeakKeyDictionary[Backbone, list[Any]]" = weakref.WeakKeyDictionary()


def _configs(backbone: Backbone) -> list[Any]:
    """Those of transformers that name an attention, each once: looked for once, not at every step."""
    if backbone not in _CONFIGS:
        own = {id(config): config for m in backbone.module.modules() if (config := getattr(m, "config", None))}
        _CONFIGS[backbone] = [config for config in own.values() if hasattr(config, "_attn_implementation")]
    return _CONFIGS[backbone]


@contextmanager
def cast(backbone: Backbone, precision: str) -> Iterator[None]:
    """``autocast`` for one forward of a backbone, on a CPU with attention as plain matrix products.

    There torch's fused attention in half precision is slower than the products it is made of, backward above all.

    Args:
        backbone: Whose modules' configurations are changed meanwhile, if transformers made them.
        precision: As for ``autocast``.
    """
    device, changed = str(backbone.device), []
    if precision != "float32" and backbone.device.type == "cpu":
        changed = [config for config in _configs(backbone) if config._attn_implementation == FUSED]
    try:
        for config in changed:
            config._attn_implementation_internal = PLAIN
        with autocast(precision, device):
            yield
    finally:
        for config in changed:
            config._attn_implementation_internal = FUSED


def loss_scale(precision: str) -> float:
    """What the loss is multiplied by before, and gradients divided by after, backward.

    Gradients below 6e-8 vanish in fp16 (Micikevicius et al., 2018); a power of two changes no other bit.
    """
    return 1024.0 if precision == "float16" else 1.0
