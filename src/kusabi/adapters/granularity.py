"""How the trained entries of a weight lie together: single, in whole rows, columns or blocks, per output, structured.

A weight of any shape is seen as a matrix, its first axis by all the others: for linear, convolution and fused attention
weights a row holds the inputs of one output neuron. Units are tiles of that matrix, ragged at its lower and right edges
where its sides are no multiples. Positions that other adapters have taken can be kept out: a unit that holds one is out
as a whole.

The budget is never exceeded: a unit that does not fit into what is left of it is passed over, and smaller or weaker
ones that fit are taken. A budget below one unit therefore leaves a weight empty; see ``allocation.whole_units``.
Equal scores are broken by the lower unit. Everything is ranked on the device of the scores.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.free_support import random_free_support, top_free_support
from kusabi.adapters.support import random_scores, random_support, ranked, top_support
from kusabi.errors import AdapterError

_BLOCK = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})")


def choose(
    scores: Tensor, k: int, granularity: str = "entry", *, by: Literal["sum", "mean"] = "sum", largest: bool = True,
    name: str = "weight", taken: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """At most ``k`` entries of a weight with the largest scores: rising flat positions, int32 on the CPU.

    Args:
        scores: Of the weight's shape.
        k: The weight's share of the budget.
        granularity: ``entry``: the k largest. ``row``, ``column``, or a block such as ``4x4`` or ``1x8`` (height by
            width): whole units with the largest scores. ``output``: equally many in every row, as GPS (arXiv
            2312.10136) takes the top inputs of every neuron; the remainder goes where the next score is largest.
            ``struct``: the main diagonal, then the rows and columns of the largest mean score, as in SHiRA-Struct
            (arXiv 2406.13175, section 3); a budget below the diagonal takes the largest of it.
        by: What a unit is ranked by: the sum of its scores or their mean, which differ for ragged units only.
        largest: False for the smallest scores, as in Super-Tuning's other end.
        name: The target, for messages.
        taken: Positions that are not to be had, rising; see ``free_support``.

    Raises:
        AdapterError: If the granularity is unknown, a score is not a number, fewer than ``k`` single entries are free,
            or ``struct`` is to go around positions taken.
    """
    if granularity == "entry":
        if taken is not None:
            return top_free_support(ranked(scores, largest=largest, name=name), k, name, taken)
        return top_support(scores, k, largest=largest, name=name)
    matrix = ranked(scores, largest=largest, name=name).reshape(matrix_shape(scores.shape))
    if granularity == "output":
        return _per_row(matrix, k, taken)
    if granularity == "struct":
        _check_whole(name, taken)
        wide = matrix.to(torch.float64)
        return _structured(wide.mean(1), wide.mean(0), wide.diagonal(), k)
    height, width = unit_shape(granularity, scores.shape)
    counts = _tile_sizes(matrix.shape, height, width, matrix.device)
    totals = _tile_sums(matrix, height, width)
    order = (totals / counts if by == "mean" else totals).flatten().sort(descending=True, stable=True).indices
    order = _untouched(order, matrix.shape, height, width, taken)
    return _laid_out(_fitting(order, counts.flatten(), k), matrix.shape, height, width)


def choose_random(
    shape: Sequence[int], k: int, granularity: str = "entry", *, seed: int, name: str, taken: Tensor | None = None
) -> Tensor:
    """At most ``k`` entries of a weight at random, by (seed, name) and what is taken: rising flat positions, int32.

    Args:
        shape: The weight's.
        k: The weight's share of the budget.
        granularity: As in ``choose``; single entries are those of ``random_support``.
        seed: Of the run.
        name: The target: weights of equal shape get different supports.
        taken: As in ``choose``.

    Raises:
        AdapterError: As ``choose`` does.
    """
    rows, columns = matrix_shape(shape)
    if granularity == "entry":
        if taken is not None:
            return random_free_support(rows * columns, k, seed, name, taken)
        return random_support(rows * columns, k, seed, name)
    if granularity == "output":
        return _per_row(random_scores(rows * columns, seed, name).view(rows, columns), k, taken)
    if granularity == "struct":
        _check_whole(name, taken)
        sides = [rows, columns, min(rows, columns)]
        down, across, diagonal = random_scores(sum(sides), seed, name).split(sides)
        return _structured(down, across, diagonal, k)
    height, width = unit_shape(granularity, shape)
    counts = _tile_sizes((rows, columns), height, width)
    order = random_scores(counts.numel(), seed, name).sort(descending=True, stable=True).indices
    order = _untouched(order, (rows, columns), height, width, taken)
    return _laid_out(_fitting(order, counts.flatten(), k), (rows, columns), height, width)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Outputs by all the rest: a convolution's kernels are rows, a vector is a column."""
    return (shape[0], math.prod(shape[1:])) if len(shape) else (1, 1)


def unit_shape(granularity: str, shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of one unit, no larger than the weight; ``(1, 1)`` where single entries are chosen.

    Raises:
        AdapterError: If the granularity is unknown.
    """
    rows, columns = (max(1, side) for side in matrix_shape(shape))
    if granularity in ("entry", "output", "struct"):
        return 1, 1
    if granularity == "row":
        return 1, columns
    if granularity == "column":
        return rows, 1
    if block := _BLOCK.fullmatch(granularity):
        return min(int(block[1]), rows), min(int(block[2]), columns)
    raise AdapterError(
        f"granularity '{granularity}' is not understood; write entry, row, column, output, struct, or a block such as "
        "4x4 or 1x8"
    )


def _tile_sizes(shape: Sequence[int], height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Entries of every tile: ``(tiles down, tiles across)`` int64."""
    down, across = (
        (side - torch.arange(0, side, step, device=device)).clamp(max=step)
        for side, step in zip(shape, (height, width), strict=True)
    )
    return down[:, None] * across


def _tile_sums(matrix: Tensor, height: int, width: int) -> Tensor:
    """Summed scores of every tile, in fp64: equal tiles are to have equal sums in whatever order they are added."""
    down, across = -matrix.shape[0] % height, -matrix.shape[1] % width
    padded = F.pad(matrix.to(torch.float64), (0, across, 0, down))
    return padded.view(len(padded) // height, height, padded.shape[1] // width, width).sum((1, 3))


def _mask(shape: Sequence[int], taken: Tensor, device: torch.device) -> Tensor:
    """True at the positions taken: a matrix of the weight's shape."""
    mask = torch.zeros(shape[0] * shape[1], dtype=torch.bool, device=device)
    return mask.index_fill_(0, taken.to(device, torch.int64), True).view(shape[0], shape[1])


def _untouched(order: Tensor, shape: Sequence[int], height: int, width: int, taken: Tensor | None) -> Tensor:
    """Those units of an order in which no position is taken."""
    if taken is None or not len(taken):
        return order
    touched = _tile_sums(_mask(shape, taken, order.device), height, width).flatten() > 0
    return order[~touched[order]]


def _check_whole(name: str, taken: Tensor | None) -> None:
    if taken is not None and len(taken):
        raise AdapterError(
            f"{name}: granularity 'struct' crosses every row and column, so that nothing is free of the entries taken; "
            "choose another granularity"
        )


def _fitting(order: Tensor, counts: Tensor, k: int) -> Tensor:
    """Units in the given order, each if it fits into what is left: ``(units,)`` bool."""
    chosen, left = torch.zeros(len(counts), dtype=torch.bool, device=order.device), k
    while len(order):  # once for every size of unit at most, four with ragged edges
        ends = counts[order].cumsum(0)
        fit = int((ends <= left).sum())
        chosen[order[:fit]] = True
        left -= int(ends[fit - 1]) if fit else 0
        order = order[fit:]
        order = order[counts[order] <= left]
    return chosen


def _laid_out(chosen: Tensor, shape: Sequence[int], height: int, width: int) -> Tensor:
    """Flat positions of the chosen tiles."""
    rows, columns = shape
    tiles = chosen.view(-(-rows // height), -(-columns // width))
    inside = tiles.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
    return torch.nonzero(inside.flatten()).flatten().to("cpu", torch.int32)


def _per_row(matrix: Tensor, k: int, taken: Tensor | None = None) -> Tensor:
    """The same number of the largest in every row; one more where the next is largest, ties to the upper row.

    A row that has fewer free entries gives what it has.
    """
    closed = None if taken is None else _mask(matrix.shape, taken, matrix.device)
    if closed is not None:
        matrix = matrix.masked_fill(closed, -torch.inf)
    each, more = divmod(min(k, matrix.numel()), max(1, len(matrix)))
    best, order = matrix.sort(dim=1, descending=True, stable=True)
    chosen = torch.zeros_like(matrix, dtype=torch.bool).scatter_(1, order[:, :each], True)
    if more:
        lucky = top_support(best[:, each], more).to(matrix.device, torch.int64)
        chosen[lucky, order[lucky, each]] = True
    if closed is not None:
        chosen &= ~closed
    return torch.nonzero(chosen.flatten()).flatten().to("cpu", torch.int32)


def _structured(rows: Tensor, columns: Tensor, diagonal: Tensor, k: int) -> Tensor:
    """The diagonal, then whole rows and columns by their scores; a line costs the entries not yet taken."""
    height, width, length = len(rows), len(columns), len(diagonal)
    if k <= length:
        return top_support(diagonal, k) * (width + 1)
    chosen = torch.zeros(height, width, dtype=torch.bool)
    chosen.diagonal().fill_(True)
    left = k - length
    for line in torch.cat([rows, columns]).sort(descending=True, stable=True).indices.tolist():
        entries = chosen[line] if line < height else chosen[:, line - height]
        cost = int((~entries).sum())
        if cost <= left:
            entries.fill_(True)
            left -= cost
    return torch.nonzero(chosen.flatten()).flatten().to(torch.int32)
