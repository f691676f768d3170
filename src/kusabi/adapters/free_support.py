"""Entries that other adapters left free: supports chosen among them share nothing with theirs.

Composing such adapters changes no value of either (the shared-budget mode).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support, top_support
from kusabi.errors import AdapterError


def taken_positions(existing: Iterable[SparseDelta], name: str) -> Tensor:
    """Positions of one weight that some delta trains: ``(t,)`` int32, rising, on the CPU."""
    parts = [delta.indices[delta.slices[name]].cpu() for delta in existing if name in delta.slices]
    return torch.cat([torch.empty(0, dtype=torch.int32), *parts]).unique()


def random_free_support(size: int, k: int, seed: int, name: str, taken: Tensor) -> Tensor:
    """``k`` uniformly drawn positions beside those taken: ``(k,)`` int32, rising.

    A function of (seed, name, taken) alone; with nothing taken it is ``random_support``.

    Args:
        size: Entries of the weight.
        k: How many to draw.
        seed: Of the draw.
        name: Of the weight: weights of equal size get different supports.
        taken: ``(t,)`` positions within the weight, as ``taken_positions`` gives them.

    Raises:
        AdapterError: If fewer than ``k`` are free, or positions taken lie outside the weight.
    """
    taken = taken.to("cpu", torch.int64).unique()
    free = _free_count(size, k, name, taken)
    return free_positions(taken, random_support(free, k, seed, name)).to(torch.int32)


def top_free_support(scores: Tensor, k: int, name: str, taken: Tensor) -> Tensor:
    """The ``k`` largest scores beside the positions taken, ties to the lower index: ``(k,)`` int32, rising.

    With nothing taken it is ``top_support``.

    Args:
        scores: One for each entry of the weight, any shape.
        k: How many to choose.
        name: Of the weight, for the message.
        taken: ``(t,)`` positions within the weight, as ``taken_positions`` gives them.

    Raises:
        AdapterError: If fewer than ``k`` are free, positions taken lie outside the weight, or a score is no number.
    """
    taken, flat = taken.to("cpu", torch.int64).unique(), scores.detach().flatten().cpu()
    _free_count(len(flat), k, name, taken)
    left = torch.ones(len(flat), dtype=torch.bool).index_fill_(0, taken, False)
    return free_positions(taken, top_support(flat[left], k, name=name)).to(torch.int32)


def free_positions(taken: Tensor, ranks: Tensor) -> Tensor:
    """Positions of the entries with these ranks among the free ones, int64, on the device of ``taken`` (rising)."""
    ranks = ranks.to(taken.device, torch.int64)
    free_before = taken - torch.arange(len(taken), device=taken.device)  # free entries that lie below each one taken
    return ranks + torch.searchsorted(free_before, ranks, right=True)


def _free_count(size: int, k: int, name: str, taken: Tensor) -> int:
    if len(taken) and not 0 <= int(taken[0]) <= int(taken[-1]) < size:
        raise AdapterError(f"{name}: positions taken lie outside its {size} entries; is this another model?")
    if not 0 <= k <= size - len(taken):
        raise AdapterError(
            f"{name}: {k} entries are asked for, {size - len(taken)} of {size} are free; lower the budget"
        )
    return size - len(taken)
