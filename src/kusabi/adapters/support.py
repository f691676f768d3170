"""Which entries of a weight are trained: budgets and support rules.

A rule answers with ``k`` distinct flat indices in rising order. Equal scores are broken by the lower index, so that a
support never depends on a library's sort.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def allocate(budget: int, sizes: Sequence[int]) -> list[int]:
    """Share a budget over targets in proportion to their sizes (largest remainder, ties to the earlier target).

    The parts add up to ``min(budget, sum(sizes))`` and none exceeds its target.
    """
    total = sum(sizes)
    budget = min(budget, total)
    shares = [budget * size // total for size in sizes]
    remainders = sorted(range(len(sizes)), key=lambda i: (-(budget * sizes[i] % total), i))
    for i in remainders[: budget - sum(shares)]:
        shares[i] += 1
    return shares


def random_support(size: int, k: int, seed: int, name: str) -> Tensor:
    """``k`` uniformly drawn positions, a function of (seed, name) alone: ``(k,)`` int32.

    The stream is Philox 4x64 keyed by a digest of seed and name, so equal shapes get different supports.
    """
    key = np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], dtype="<u8")
    stream = np.random.Philox(key=key)
    chosen = np.empty(0, dtype=np.int64)
    if k * 2 > size:  # dense: sorting random keys beats drawing until complete
        keys = stream.random_raw(size)
        return _sorted(np.argsort(keys, kind="stable")[:k])
    while len(chosen) < k:
        raw = stream.random_raw(max(64, (k - len(chosen)) * 9 // 8))
        drawn = np.concatenate([chosen, _below(raw, size)])
        _, first = np.unique(drawn, return_index=True)
        chosen = drawn[np.sort(first)]
    return _sorted(chosen[:k])


def top_support(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest scores of any shape, ties to the lower index: ``(k,)`` int32.

    With ``scores = |W|`` this is Super-Tuning's rule, with ``|grad|`` SAFT's (arXiv 2407.03036, section 3).
    """
    flat = scores.detach().flatten().float().cpu()
    if k >= len(flat):
        return torch.arange(len(flat), dtype=torch.int32)
    threshold = flat.kthvalue(len(flat) - k + 1).values
    above = torch.nonzero(flat > threshold).flatten()
    level = torch.nonzero(flat == threshold).flatten()[: k - len(above)]
    return torch.cat([above, level]).sort().values.to(torch.int32)


def _below(raw: np.ndarray, bound: int) -> np.ndarray:
    """64 random bits to [0, bound) by multiply and shift of the upper 32 bits; the bias is below bound / 2**32."""
    return ((raw >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _sorted(indices: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(indices).astype(np.int32))
