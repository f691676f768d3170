"""Weights in memory of their own: writing into a memory-mapped file costs a copy of the page at its first touch.

An adapter of a thousandth of the entries touches most pages of its weights, so that its first swap would cost as
much as many later ones. Copied in one piece while the model loads, the same bytes cost less.
"""

from torch import nn


def own_memory(module: nn.Module) -> nn.Module:
    """The module, its mapped tensors copied; nothing is done for what was converted on loading."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.untyped_storage().resizable():  # memory that torch did not allocate itself
            tensor.data = tensor.data.clone()
    return module
