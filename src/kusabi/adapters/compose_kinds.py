"""Composition of adapters of any kind that is added to weights: sparse deltas, low-rank parts, both together.

Requirements this file exists for:
- nothing dense is composed or kept: sparse parts are composed by ``compose``, low-rank parts by laying their ranks side
  by side; only to see that a low-rank part is finite is its update made, for one weight at a time;
- the order of the adapters never matters, not by one bit: ranks are laid in an order that follows from what they hold;
- one adapter with weight 1 comes back as it was.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from kusabi.adapters.compose import How, check_composable, compose, joint_names
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.part import AdapterPart, WeightDelta
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, listed

Kind = TypeVar("Kind", bound=WeightDelta)


def compose_kinds(
    adapters: Sequence[Sequence[AdapterPart]], weights: Sequence[float], how: How = "sum", *, density: float = 1.0,
    sizes: Mapping[str, int] | None = None,
) -> tuple[WeightDelta, ...]:  # fmt: skip
    """One adapter in place of several; the given ones are left as they are.

    Args:
        adapters: At least one, each by its parts, on one device.
        weights: One finite factor for each adapter.
        how: ``sum`` for every kind; ``ties`` and ``disjoint``, which are rules for single entries, for sparse deltas.
        density: For ``ties``, see ``compose``.
        sizes: Entries of each weight, to refuse adapters of another model.

    Returns:
        At most one sparse delta and one low-rank part, in this order.

    Raises:
        AdapterError: As ``compose`` does; listing every part that cannot be composed, or not in this way.
    """
    if not adapters:
        raise AdapterError("there is no adapter to compose; give at least one")
    if len(weights) != len(adapters):
        raise AdapterError(f"there are {len(adapters)} adapters and {len(weights)} weights; give one weight for each")
    check_kinds(adapters, how)
    parts = [[part for part in adapter if isinstance(part, WeightDelta)] for adapter in adapters]
    check_composable(parts, sizes)
    made: list[WeightDelta] = []
    sparse = [(_one(own), w) for own, w in zip(_of(SparseDelta, parts), weights, strict=True) if own]
    low_rank = [(part, w) for own, w in zip(_of(LowRank, parts), weights, strict=True) for part in own]
    if sparse or not low_rank:
        made.append(compose([d for d, _ in sparse], [w for _, w in sparse], how, density=density))
    if low_rank:
        made.append(add_low_rank([part for part, _ in low_rank], [w for _, w in low_rank]))
    return tuple(made)


def add_low_rank(parts: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """The weighted sum of low-rank updates as one: its rank is the sum of theirs.

    ``sum_i w_i s_i B_i A_i = s [r_1 B_1, r_2 B_2, …] [A_1; A_2; …]``, where s is the largest ``|w_i s_i|`` of a weight
    and ``r_i = w_i s_i / s``. So B is scaled only where factors differ; elsewhere, and in every A, no bit is lost.
    Gates are folded into B first, and dropout, which is for training, ends.

    Args:
        parts: At least one.
        weights: One finite factor for each.

    Raises:
        AdapterError: Listing the weights that are matrices of different shapes, or whose sum is too large for fp32.
    """
    if len(parts) == 1 and weights[0] == 1:
        return copy.deepcopy(parts[0])
    pairs = [
        (part.pruned() if part.shrinkage is not None else part, float(w))
        for part, w in zip(parts, weights, strict=True)
    ]
    pairs.sort(key=_content)
    shapes: dict[str, tuple[int, int]] = {}
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    alphas, wrong = {}, []
    for name in joint_names(parts):
        own = [(part, w * part.scale(name)) for part, w in pairs if name in part.shapes]
        found = sorted({part.shapes[name] for part, _ in own})
        if len(found) != 1:
            wrong += (
                [f"{name} is {listed([f'{rows} x {columns}' for rows, columns in found], ' and ')}"] if found else []
            )
            continue
        scale = max(abs(factor) for _, factor in own) or 1.0
        a = torch.cat([part.factors(name)[0] for part, _ in own])
        b = torch.cat([(part.factors(name)[1].double() * (factor / scale)).float() for part, factor in own], 1)
        if not bool(b.isfinite().all()) or not torch.tensor(scale, dtype=torch.float32).isfinite():
            wrong.append(f"{name} is too large for fp32")
        shapes[name], factors[name], alphas[name] = found[0], (a, b), scale * len(a)
    if wrong:
        raise AdapterError(f"these low-rank adapters cannot be added up: {listed(wrong, '; ')}")
    ranks = {name: len(a) for name, (a, _) in factors.items()}
    composed = LowRank(shapes, ranks, alphas).to(parts[0].values.device)
    composed.values.data.copy_(torch.cat([factor.flatten() for pair in factors.values() for factor in pair]))
    return composed


def _of(kind: type[Kind], adapters: Sequence[Sequence[WeightDelta]]) -> list[list[Kind]]:
    return [[part for part in parts if isinstance(part, kind)] for parts in adapters]


def _one(own: Sequence[SparseDelta]) -> SparseDelta:
    return own[0] if len(own) == 1 else compose(own, [1.0] * len(own))


def check_kinds(adapters: Sequence[Sequence[AdapterPart]], how: str) -> None:
    """Refuse parts that cannot be composed, or not in this way.

    Raises:
        AdapterError: With all of them. Adapters are counted from 1.
    """
    wrong = []
    for number, parts in enumerate(adapters, 1):
        for part in parts:
            kind = part.kind.replace("_", " ")
            if not isinstance(part, SparseDelta | LowRank):
                wrong.append(f"adapter {number}: a {kind} computes beside the model, not linearly, and has no sum")
            elif how in ("ties", "disjoint") and not isinstance(part, SparseDelta):
                wrong.append(
                    f"adapter {number}: '{how}' is a rule for single entries, a {kind} part has none; use 'sum'"
                )
    if wrong:
        raise AdapterError(f"these adapters cannot be composed: {listed(wrong, '; ')}")


def _content(pair: tuple[LowRank, float]) -> str:
    """A key that follows from what a part adds, never from where it stood."""
    part, weight = pair
    about = json.dumps([part.names, part.settings(), weight], sort_keys=True)
    values = part.values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(about.encode() + values).hexdigest()
