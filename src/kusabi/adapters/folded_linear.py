"""A linear layer with a sparse delta in its weight that keeps no second weight for the backward pass.

Adding the delta by plain operations saves a dense copy of the weight for every adapted layer (872 against 555 MiB for a
ViT-B/16 in PEFT's SHiRA and Super-Tuning). Here the folded weight and its dense gradient live for one layer at a time:
what is saved are the inputs, the layer's own weight and the K entries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kusabi.adapters.fold import folded

Part = tuple[Tensor, Tensor]
"""Flat positions ``(k,)``, whole numbers without repeats, and their values ``(k,)``."""


def folded_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, part: Part) -> Tensor:
    """``F.linear(inputs, folded_weight(weight, part), bias)``, bitwise, differentiable once.

    The gradient of the values is that of the entries they are added to; the rounding to the weight's dtype and the
    exception for zeros of ``folded`` have none. Inputs, weight and bias get theirs where they ask for it.

    Args:
        inputs: ``(..., columns)``.
        weight: ``(rows, columns)``.
        bias: ``(rows,)`` or None.
        part: Of the weight.
    """
    kind = inputs.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    if torch.is_autocast_enabled(kind):
        inputs, bias = inputs.to(dtype), None if bias is None else bias.to(dtype)
    indices, values = part
    found: Any = _FoldedLinear.apply(inputs, weight, bias, indices, values, dtype)
    return found


def folded_weight(weight: Tensor, part: Part) -> Tensor:
    """A contiguous copy of the weight with the part added, as ``attached`` would write it."""
    indices, values = part
    copy = weight.detach().clone(memory_format=torch.contiguous_format)
    at = indices.long()
    flat = copy.view(-1)
    flat.index_copy_(0, at, folded(flat[at], values.detach()))
    return copy


def joined(parts: list[Part]) -> Part:
    """Several parts of one weight as one: values on the same entry are added in fp32, in the order given."""
    if len(parts) == 1:
        return parts[0]
    positions, places = torch.cat([indices for indices, _ in parts]).unique(return_inverse=True)
    total = torch.zeros(len(positions), dtype=torch.float32, device=positions.device)
    return positions, total.index_add(0, places, torch.cat([values.float() for _, values in parts]))


class _FoldedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        inputs: Tensor, weight: Tensor, bias: Tensor | None, indices: Tensor, values: Tensor, dtype: torch.dtype
    ) -> Tensor:
        return F.linear(inputs, folded_weight(weight, (indices, values)).to(dtype), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        given, weight, _, indices, values, _ = inputs
        ctx.save_for_backward(given, weight, indices, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, weight, indices, values = ctx.saved_tensors
        of_inputs, of_weight, of_bias, _, of_values, _ = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * 6
        rows = gradient.reshape(-1, gradient.shape[-1])
        if of_inputs:
            found[0] = gradient @ folded_weight(weight, (indices, values)).to(gradient.dtype)
        if of_weight or of_values:
            dense = rows.T @ inputs.reshape(-1, inputs.shape[-1])  # gone when this layer is done
            found[1] = dense.to(weight.dtype) if of_weight else None
            found[4] = dense.reshape(-1)[indices.long()].to(values.dtype) if of_values else None
        if of_bias:
            found[2] = rows.sum(0)
        return tuple(found)
