"""Which entries of a weight are trained: scores, the largest of them, and random ones.

A rule answers with ``k`` distinct flat indices in rising order. Equal scores are broken by the lower index, so that a
support never depends on a library's sort. Entries that lie together are the matter of ``granularity``.
"""

import hashlib
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kusabi.adapters.allocation import allocate as allocate
from kusabi.errors import AdapterError

ScoreRule = Literal["magnitude", "gradient", "snip"]

_MOST = 2**31  # positions that an int32 index can tell apart


def scores(rule: ScoreRule, weight: Tensor, gradient: Tensor | None = None, name: str = "weight") -> Tensor:
    """How much every entry of a weight matters, in fp32 (fp64 for fp64): the shape and device of the weight.

    Products are taken after the cast: in bf16 their rounding would make ties that the lower index wins.

    Args:
        rule: ``magnitude``: |W| (SHiRA-WM, arXiv 2406.13175, section 3; Super-Tuning, arXiv 2607.09287). ``gradient``:
            |g| (SHiRA-Grad; SAFT, arXiv 2407.03036, section 3; GPS, arXiv 2312.10136). ``snip``: |g W| (SHiRA-SNIP).
        weight: Any shape.
        gradient: Of the weight's shape, for ``gradient`` and ``snip``.
        name: The target, for messages.

    Raises:
        AdapterError: If the rule is unknown, the gradient is missing or of another shape, or a score is not finite.
    """
    if rule == "magnitude":
        found = _wide(weight)
    elif gradient is None:
        raise AdapterError(f"{name}: no gradient reached it; choose other targets, or a rule without gradients")
    elif gradient.shape != weight.shape:
        raise AdapterError(f"{name}: a gradient of shape {(*gradient.shape,)} for a weight of {(*weight.shape,)}")
    elif rule == "gradient":
        found = _wide(gradient)
    elif rule == "snip":
        found = _wide(gradient) * _wide(weight)
    else:
        raise AdapterError(f"support rule '{rule}' has no scores; write {', '.join(get_args(ScoreRule))}")
    bad = int((~found.isfinite()).sum())
    if bad:
        raise AdapterError(
            f"{name}: {bad} of {found.numel()} {rule} scores are not finite; check the model and the pictures, or "
            "take gradients in float32"
        )
    return found.abs()


def top_support(scores: Tensor, k: int, *, largest: bool = True, name: str = "weight") -> Tensor:
    """The ``k`` largest scores of any shape, ties to the lower index: ``(k,)`` int32 on the CPU.

    Args:
        scores: Ranked on their own device.
        k: All positions, if there are fewer.
        largest: False for the smallest scores, Super-Tuning's other end; ties still go to the lower index.
        name: The target, for messages.

    Raises:
        AdapterError: If a score is not a number.
    """
    flat = ranked(scores, largest=largest, name=name).flatten()
    if k >= len(flat) or k <= 0:
        return torch.arange(max(0, min(k, len(flat))), dtype=torch.int32)
    threshold = flat.topk(k, sorted=False).values.min()
    above = torch.nonzero(flat > threshold).flatten()
    level = torch.nonzero(flat == threshold).flatten()[: k - len(above)]
    return torch.cat([above, level]).sort().values.to("cpu", torch.int32)


def random_support(size: int, k: int, seed: int, name: str) -> Tensor:
    """``k`` uniformly drawn positions, a function of (seed, name) alone: ``(k,)`` int32.

    The stream is Philox 4x64 keyed by a digest of seed and name, so equal shapes get different supports.

    Raises:
        AdapterError: If an int32 index cannot reach every position.
    """
    _check_reach(size, name)
    stream = _stream(seed, name)
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


def random_scores(count: int, seed: int, name: str) -> Tensor:
    """Uniform scores in [0, 1), a function of (seed, name) alone: ``(count,)`` fp64, 53 bits each, on the CPU."""
    raw = _stream(seed, name).random_raw(count)
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def ranked(scores: Tensor, *, largest: bool = True, name: str = "weight") -> Tensor:
    """Scores in a type that orders them exactly, the wanted ones largest.

    Raises:
        AdapterError: If a score is not a number, or an int32 index cannot reach every score.
    """
    _check_reach(scores.numel(), name)
    wide = _wide(scores)
    bad = int(wide.isnan().sum())
    if bad:
        raise AdapterError(f"{name}: {bad} of {wide.numel()} scores are not numbers; nothing can be ranked by them")
    return wide if largest else -wide


def _wide(tensor: Tensor) -> Tensor:
    """At least fp32."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _check_reach(size: int, name: str) -> None:
    if size > _MOST:
        raise AdapterError(f"{name}: {size} entries are more than the {_MOST} that can be told apart; leave it out")


def _stream(seed: int, name: str) -> np.random.Philox:
    return np.random.Philox(key=np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], dtype="<u8"))


def _below(raw: np.ndarray, bound: int) -> np.ndarray:
    """64 random bits to [0, bound) by multiply and shift of the upper 32 bits; the bias is below bound / 2**32."""
    return ((raw >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _sorted(indices: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(indices).astype(np.int32))
