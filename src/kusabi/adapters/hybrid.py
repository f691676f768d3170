"""Sparse plus low-rank on the same weights (RoSA, arXiv 2401.04679; Supra, arXiv 2607.09287): what the two share.

A hybrid is two parts, a ``SparseDelta`` and a ``LowRank``: they join, train, merge and leave as any two parts do.
Shared are the budget, and RoSA's way to the support:

1. Warm the low-rank part up alone.
2. Take dense gradients of the weights around it, ``with attached(module, low_rank), dense_gradients(module, names)``,
   once for each batch, and give them to ``rosa_supports``.
3. Start both anew: a ``SparseDelta`` of these supports, and ``fresh`` with the seed of before.

``support_rule = "warm_up"`` of a spec does all three.

Supra needs no gradients: its support are the largest weights (``support.scores`` by magnitude).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kusabi.adapters.granularity import matrix_shape
from kusabi.adapters.support import top_support
from kusabi.errors import AdapterError, listed


@dataclass(frozen=True)
class Split:
    """A budget of trained entries: one rank for all weights, and sparse entries over all of them."""

    rank: int
    entries: int


def split_budget(
    budget: int, shapes: Mapping[str, Sequence[int]], *, rank: int | None = None, share: float = 0.5,
    gated: bool = False,
) -> Split:  # fmt: skip
    """Share a budget between both parts, to the last entry.

    Args:
        budget: Trained entries in all.
        shapes: Weight -> its shape.
        rank: Of the low-rank part, as RoSA and Supra state it.
        share: Where no rank is given: at most this share of the budget buys ranks, as many as are whole and as the
            smallest weight can have.
        gated: Whether every rank has a gate too.

    Raises:
        AdapterError: If the share buys no rank, the rank costs more than the budget, or the weights are too small.
    """
    if not shapes:
        raise AdapterError("a hybrid needs at least one weight")
    cost, sides = rank_cost(shapes, gated=gated), [matrix_shape(shape) for shape in shapes.values()]
    most = min(min(side) for side in sides)
    if rank is None:
        rank = min(most, int(share * budget) // cost)
        if rank < 1:
            raise AdapterError(
                f"a share of {share:g} of {budget} entries buys no rank: one of all {len(shapes)} weights costs "
                f"{cost}; raise the budget or the share, or target fewer weights"
            )
    if not 1 <= rank <= most:
        raise AdapterError(f"rank {rank} is not within 1 and the {most} that the smallest weight can have")
    entries, positions = budget - rank * cost, sum(rows * columns for rows, columns in sides)
    if entries < 0:
        raise AdapterError(f"rank {rank} costs {rank * cost} entries, more than the budget of {budget}")
    if entries > positions:
        raise AdapterError(f"{entries} sparse entries are more than the {positions} that the weights have")
    return Split(rank, entries)


def rank_cost(shapes: Mapping[str, Sequence[int]], *, gated: bool = False) -> int:
    """Trained entries of one rank on every weight: rows plus columns, and a gate."""
    return sum(sum(matrix_shape(shape)) + gated for shape in shapes.values())


def rosa_supports(gradients: Iterable[Mapping[str, Tensor]], entries: Mapping[str, int]) -> dict[str, Tensor]:
    """RoSA's support: within each weight, the largest sums of squared gradients (ties to the lower index).

    Args:
        gradients: Of one batch after the other, weight -> dense gradient; the authors take one batch. An iterator that
            computes them keeps one batch of gradients alive at a time.
        entries: Weight -> its share of the budget; the authors give all weights one density.

    Returns:
        Weight -> rising positions, int32 on the CPU.

    Raises:
        AdapterError: Listing the weights that lack a gradient, or have one that is not finite.
    """
    squares: dict[str, Tensor] = {}
    wrong: dict[str, str] = {}
    for batch in gradients:
        for name in entries:
            if name not in batch:
                wrong[name] = f"{name}: no gradient reached it"
            elif not bool(batch[name].isfinite().all()):
                wrong[name] = f"{name}: its gradient is not finite"
            else:
                square = batch[name].detach().to(torch.float32).square()
                squares[name] = squares[name] + square if name in squares else square
    wrong |= {name: f"{name}: no gradient reached it" for name in entries if name not in squares and name not in wrong}
    if wrong:
        raise AdapterError(f"no support can be chosen: {listed(list(wrong.values()), '; ')}")
    return {name: top_support(squares[name], k, name=name) for name, k in entries.items()}
