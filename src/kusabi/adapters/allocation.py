"""How a hard budget of trained entries is shared over targets.

Shares are computed in whole numbers, so that they never depend on how a sum was rounded.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from kusabi.errors import AdapterError, listed

Allocation = Literal["size", "uniform", "energy"]


def allocate(budget: int, sizes: Sequence[int], weights: Sequence[float] | None = None) -> list[int]:
    """Share a budget over targets in proportion to weights (largest remainder, ties to the earlier target).

    The parts add up to ``min(budget, sum(sizes))`` and none exceeds its target: what a full target cannot take goes to
    the others in the same proportion. Targets of weight zero get entries only when all others are full, by their sizes.

    Args:
        budget: Entries in all.
        sizes: Entries that each target has.
        weights: Finite, not negative; the sizes when absent.
    """
    shares = [0] * len(sizes)
    left = min(budget, sum(sizes))
    parts = _whole(sizes if weights is None else weights)
    weighty = [i for i, part in enumerate(parts) if part > 0]
    weightless = [i for i, part in enumerate(parts) if part == 0]
    left -= _pour(left, weighty, parts, sizes, shares)
    _pour(left, weightless, sizes, sizes, shares)
    return shares


def share_budget(
    rule: Allocation, budget: int, sizes: Mapping[str, int], gradients: Mapping[str, Tensor] | None = None
) -> dict[str, int]:
    """Entries of every target, by ``allocate`` with the weights of a rule.

    Args:
        rule: ``size``: one density everywhere, as in SHiRA. ``uniform``: equal numbers. ``energy``: by the summed
            squares of the gradient.
        budget: Entries in all.
        sizes: Target -> entries that it has.
        gradients: Target -> dense gradient, for ``energy``.

    Raises:
        AdapterError: If the rule is unknown, or listing the targets whose gradient is missing or not finite.
    """
    match rule:
        case "size":
            weights = None
        case "uniform":
            weights = [1] * len(sizes)
        case "energy":
            weights = _energies(sizes, gradients or {})
        case _:
            raise AdapterError(f"allocation '{rule}' is not known; write {', '.join(get_args(Allocation))}")
    return dict(zip(sizes, allocate(budget, list(sizes.values()), weights), strict=True))


def whole_units(shares: Sequence[int], sizes: Sequence[int], units: Sequence[int]) -> list[int]:
    """Round shares to whole rows, columns or blocks, so that small shares do not come to nothing everywhere.

    Every share falls to a multiple of its target's unit. What this sets free buys one more unit where the largest part
    of one was cut off (ties to the earlier target), as long as it lasts: the sum does not grow.

    Args:
        shares: Entries of each target.
        sizes: Entries that each target has; a share of all of them stays.
        units: Entries of one unit of each target, at least 1.
    """
    rounded = [
        share if share == size else share // unit * unit for share, size, unit in zip(shares, sizes, units, strict=True)
    ]
    cut = [share - kept for share, kept in zip(shares, rounded, strict=True)]
    left = sum(cut)
    for i in sorted(range(len(shares)), key=lambda i: (-Fraction(cut[i], units[i]), i)):
        more = min(units[i], sizes[i] - rounded[i])
        if cut[i] and more <= left:
            rounded[i] += more
            left -= more
    return rounded


def _pour(budget: int, targets: Sequence[int], parts: Sequence[int], sizes: Sequence[int], shares: list[int]) -> int:
    """Fill the shares of some targets in proportion to positive parts; how many entries went in."""
    left = budget
    while left > 0 and any(sizes[i] for i in targets):
        whole = sum(parts[i] for i in targets)
        full = {i for i in targets if left * parts[i] >= sizes[i] * whole}
        if not full:  # nobody is filled by its quota, so that rounding it up by one still fits
            quotas = {i: divmod(left * parts[i], whole) for i in targets}
            missing = left - sum(floor for floor, _ in quotas.values())
            ups = set(sorted(targets, key=lambda i: (-quotas[i][1], i))[:missing])
            for i, (floor, _) in quotas.items():
                shares[i] = floor + (i in ups)
            return budget
        for i in full:
            shares[i] = sizes[i]
            left -= sizes[i]
        targets = [i for i in targets if i not in full]
    return budget - left


def _whole(weights: Sequence[float]) -> list[int]:
    """Integers in exactly the proportion of the weights: every float is an integer over a power of two."""
    ratios = [weight.as_integer_ratio() for weight in weights]
    common = max((below for _, below in ratios), default=1)
    return [above * (common // below) for above, below in ratios]


def _energies(sizes: Mapping[str, int], gradients: Mapping[str, Tensor]) -> list[float]:
    energies, wrong = [], []
    for name in sizes:
        if name not in gradients:
            wrong.append(f"{name}: no gradient reached it")
            continue
        energies.append(gradients[name].detach().to(torch.float64).square().sum().item())
        if not energies[-1] < float("inf"):
            wrong.append(f"{name}: its gradient is not finite")
    if wrong:
        raise AdapterError(
            f"the budget cannot be shared by gradient energy: {listed(wrong, '; ')}; choose other targets or share it "
            "by size"
        )
    return energies
