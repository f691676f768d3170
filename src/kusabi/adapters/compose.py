"""Composition: several sparse deltas made into one; see ``compose_kinds`` for adapters of other kinds.

Requirements this file exists for:
- the order of the deltas never matters, not by one bit: the terms of every entry are sorted before they are added,
  in float64, and rounded to fp32 once;
- one delta with weight 1 comes back as it was, ``-0.0`` included (so a missing term is ``-0.0``, which adds nothing);
- an entry whose terms cancel stays in the support with value 0, so that composing never hides what was trained.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from kusabi.adapters.part import WeightDelta
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import top_support
from kusabi.errors import AdapterError, listed

How = Literal["sum", "ties", "disjoint"]

Terms = list[tuple[Tensor, Tensor]]  # per delta: rising indices (k,) int64, weighted values (k,) float64


def compose(
    deltas: Sequence[SparseDelta],
    weights: Sequence[float],
    how: How = "sum",
    *,
    density: float = 1.0,
    sizes: Mapping[str, int] | None = None,
) -> SparseDelta:
    """One delta in place of several; the given ones are left as they are.

    - ``sum``: weighted sum on the union of the supports. This is task arithmetic (Ilharco et al., 2023, arXiv
      2212.04089, section 2): a negative weight forgets a task, a weight in [0, 1] is a step from zero-shot.
    - ``ties``: TIES-Merging (Yadav et al., 2023, arXiv 2306.01708, section 4, algorithm 1). Trim every delta to its
      largest magnitudes, give every entry the sign of its weighted total, take the mean of the terms that have this
      sign. Their lambda is a weight common to all. An entry whose total is 0 becomes 0, as in the paper (the authors'
      code gives it the sign of the majority of all entries).
    - ``disjoint``: the union of supports that must not overlap; nothing is added, every value is kept.

    With weights 1, attaching the result of ``sum`` equals attaching all deltas bitwise for one or two deltas and for
    disjoint supports; with n deltas the value folded in differs by at most ``(n - 1) * 2**-23 * sum(|value|)``, because
    attaching adds in fp32 in the order of attaching.

    Args:
        deltas: At least one, on one device. Targets may differ.
        weights: One finite factor for each delta.
        how: ``sum``, ``ties`` or ``disjoint``.
        density: Share of each delta's own entries, over all its targets together, that ``ties`` keeps (at least one;
            of equal magnitudes the earlier). The paper keeps a fifth of a dense vector, which is more than a sparse
            delta has: hence 1 unless told otherwise.
        sizes: Entries of each targeted weight, to refuse deltas of another model. Without it, call ``check_fits``.

    Returns:
        An fp32 delta on the device of the given ones. Its targets are those of all deltas, in their order if they agree
        on it, otherwise sorted by name, numbers as numbers.

    Raises:
        AdapterError: For no deltas, wrong or not finite weights, values or results, deltas that do not fit ``sizes``,
            and, where ``disjoint`` was asked for, overlapping supports: each with every target concerned.
    """
    deltas, weights = list(deltas), [float(weight) for weight in weights]
    _check_settings(deltas, weights, how, density)
    check_composable([[delta] for delta in deltas], sizes)
    terms = [_terms(delta, weight, density) for delta, weight in zip(deltas, weights, strict=True)]
    names = joint_names(deltas)
    per_target = {name: [own[name] for own in terms if name in own] for name in names}
    if how == "disjoint":
        _check_disjoint(per_target)
    supports, rows, endless = {}, [], []
    for name, rows_of_target in per_target.items():
        supports[name], matrix = _stacked(rows_of_target)
        row = (_agreeing_mean(matrix) if how == "ties" else _total(matrix)).to(torch.float32)
        rows.append(row)
        if not bool(row.isfinite().all()):
            endless.append(name)
    if endless:
        raise AdapterError("the composed values are too large for fp32, take smaller weights: " + listed(endless))
    composed = SparseDelta(supports).to(deltas[0].values.device)
    composed.values.data.copy_(torch.cat(rows))
    return composed


def check_composable(adapters: Sequence[Sequence[WeightDelta]], sizes: Mapping[str, int] | None = None) -> None:
    """Refuse adapters that cannot belong to one model or hold values that are not finite, listing everything.

    Args:
        adapters: Any number, each by its parts.
        sizes: Entries of each targeted weight; left out, positions are not checked.

    Raises:
        AdapterError: With every mismatch. Adapters are counted from 1.
    """
    wrong = []
    for number, name, part in ((n, name, p) for n, own in enumerate(adapters, 1) for p in own for name in p.weights):
        at, amounts = part.added(name)
        reach = len(amounts) if at is None else int(at[-1]) + 1 if len(at) else 0
        if not bool(amounts.isfinite().all()):
            wrong.append(f"adapter {number}, {name}: values that are not finite")
        if sizes is None:
            continue
        if name not in sizes:
            wrong.append(f"adapter {number}, {name}: the model has no such weight")
        elif at is None and reach != sizes[name]:
            wrong.append(f"adapter {number}, {name}: a matrix of {reach} entries for a weight of {sizes[name]}")
        elif reach > sizes[name]:
            wrong.append(f"adapter {number}, {name}: index {reach - 1} is outside its {sizes[name]} entries")
    if wrong:
        raise AdapterError("these adapters cannot be composed on this model: " + listed(wrong, "; "))


def joint_names(deltas: Sequence[WeightDelta]) -> tuple[str, ...]:
    """Weights of all deltas: in their own order if all agree, otherwise sorted by name, numbers as numbers."""
    if len({delta.weights for delta in deltas}) == 1:
        return deltas[0].weights
    return tuple(sorted({name for delta in deltas for name in delta.weights}, key=_natural))


def _check_settings(deltas: list[SparseDelta], weights: list[float], how: str, density: float) -> None:
    if not deltas:
        raise AdapterError("there is no adapter to compose; give at least one")
    if how not in get_args(How):
        raise AdapterError(f"how '{how}' is not understood; write {', '.join(get_args(How))}")
    if len(weights) != len(deltas):
        raise AdapterError(f"there are {len(deltas)} adapters and {len(weights)} weights; give one weight for each")
    if not all(map(math.isfinite, weights)):
        raise AdapterError(f"weights must be finite numbers, not {listed([str(weight) for weight in weights])}")
    if not 0 < density <= 1:
        raise AdapterError(f"density must be above 0 and at most 1, not {density}")
    if density != 1 and how != "ties":
        raise AdapterError(f"density is a setting of 'ties'; '{how}' keeps every entry")
    devices = sorted({str(delta.values.device) for delta in deltas})
    if len(devices) > 1:
        raise AdapterError(f"the adapters are on {' and '.join(devices)}; move them to one device first")


def _check_disjoint(per_target: Mapping[str, Terms]) -> None:
    overlaps = []
    for name, rows in per_target.items():
        _, holders = torch.cat([indices for indices, _ in rows]).unique(return_counts=True)
        if shared := int((holders > 1).sum()):
            overlaps.append(f"{name} ({shared} {'entry' if shared == 1 else 'entries'})")
    if overlaps:
        raise AdapterError(
            f"the supports overlap in {listed(overlaps)}; compose by 'sum' or 'ties', or train on entries left free"
        )


def _terms(delta: SparseDelta, weight: float, density: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Weighted entries by target, the largest of the whole delta; on the CPU, as not every device has float64."""
    values, indices = delta.values.detach().cpu().to(torch.float64), delta.indices.cpu().to(torch.int64)
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[top_support(values.abs(), max(1, round(density * len(values)))).long()] = True
    return {name: (indices[part][kept[part]], weight * values[part][kept[part]]) for name, part in delta.slices.items()}


def _stacked(rows: Terms) -> tuple[Tensor, Tensor]:
    """Union of the supports ``(u,)``; terms of every entry in rising order ``(n, u)``, ``-0.0`` for a missing one."""
    union = torch.cat([indices for indices, _ in rows]).unique()
    matrix = torch.full((len(rows), len(union)), -0.0, dtype=torch.float64)
    for row, (indices, values) in zip(matrix, rows, strict=True):
        row[torch.searchsorted(union, indices)] = values
    return union, matrix.sort(dim=0).values


def _total(matrix: Tensor) -> Tensor:
    """Sum over the rows from first to last, which a reduction of torch does not promise."""
    total = matrix[0].clone()
    for row in matrix[1:]:
        total += row
    return total


def _agreeing_mean(matrix: Tensor) -> Tensor:
    """Elect the sign of the total mass, then average the terms of this sign."""
    total = _total(matrix)
    agreeing = matrix.sign() == total.sign()
    mean = _total(torch.where(agreeing, matrix, -0.0)) / agreeing.sum(0).clamp(min=1)
    return torch.where(total == 0, total, mean)


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    parts = [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")]
    return parts, name
