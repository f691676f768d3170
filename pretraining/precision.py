"""Half precision where the processor has units for it; elsewhere bf16 is emulated and many times slower."""

import torch


def fast_bf16(device: str) -> bool:
    """Say whether bf16 matrix products run in hardware: CUDA, AVX512-bf16 or AMX."""
    if device == "cuda":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: str) -> torch.autocast:
    """bf16 autocast where it pays, a context that changes nothing elsewhere."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_bf16(device))


def attention(device: str) -> str:
    """The faster attention for the few tokens of small pictures and short texts: eager in bf16 on CPUs, else fused."""
    return "eager" if device == "cpu" and fast_bf16(device) else "sdpa"
