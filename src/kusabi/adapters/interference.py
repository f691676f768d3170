"""How adapters get into each other's way: measured before they are composed, and avoided by training on free entries.

The card counts what two supports share and how their values disagree there. Supports drawn from what others left free
(the shared-budget mode) share nothing, so that composing them changes no value of either.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from kusabi.adapters.compose import check_composable, joint_names
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support, top_support
from kusabi.errors import AdapterError


@dataclass(frozen=True)
class Overlap:
    """What two deltas do on the same weights; ``a + b`` is what they do on both sets of weights together.

    Attributes:
        first: Entries that the first one trains.
        second: Entries that the second one trains.
        shared: Entries that both train.
        expected: Entries that two random supports of these sizes would share on average.
        conflicts: Shared entries whose values have opposite signs.
        dot: Sum over the shared entries of the product of the values.
        first_square: Sum of the squared values of the first one.
        second_square: Sum of the squared values of the second one.
    """

    first: int = 0
    second: int = 0
    shared: int = 0
    expected: float = 0.0
    conflicts: int = 0
    dot: float = 0.0
    first_square: float = 0.0
    second_square: float = 0.0

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def share(self) -> float:
        """Shared part of the smaller support, 0 where that is empty."""
        return self.shared / max(1, min(self.first, self.second))

    @property
    def cosine(self) -> float | None:
        """Cosine of the two rows of values on the union of the supports; None where one is zero throughout."""
        norms = math.sqrt(self.first_square * self.second_square)
        return max(-1.0, min(1.0, self.dot / norms)) if norms else None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "entries": [self.first, self.second],
            "shared": self.shared,
            "share": self.share,
            "expected": self.expected,
            "conflicts": self.conflicts,
            "cosine": self.cosine,
        }


@dataclass(frozen=True)
class Pair:
    """Two adapters by label, target by target."""

    labels: tuple[str, str]
    targets: Mapping[str, Overlap]

    @property
    def layers(self) -> dict[str, Overlap]:
        """Sums over the targets of every layer, see ``layer_of``."""
        layers: dict[str, Overlap] = {}
        for name, overlap in self.targets.items():
            layers[layer_of(name)] = layers.get(layer_of(name), Overlap()) + overlap
        return layers

    @property
    def total(self) -> Overlap:
        """Sum over all targets."""
        return sum(self.targets.values(), Overlap())


@dataclass(frozen=True)
class Interference:
    """The card: every pair of the given adapters."""

    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, finite numbers only."""
        return {
            "pairs": [
                {
                    "labels": list(pair.labels),
                    "total": pair.total.to_json(),
                    "layers": {name: overlap.to_json() for name, overlap in pair.layers.items()},
                    "targets": {name: overlap.to_json() for name, overlap in pair.targets.items()},
                }
                for pair in self.pairs
            ]
        }

    def table(self) -> str:
        """Lines of text: a block for every pair, in it a line for every layer and one for all."""
        rows = [["", "shared", "of smaller", "by chance", "opposed", "cosine"]]
        for pair in self.pairs:
            rows.append([" + ".join(pair.labels), "", "", "", "", ""])
            rows += [_row(f"  {name}", overlap) for name, overlap in pair.layers.items()]
            rows.append(_row("  all", pair.total))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            [row[0].ljust(widths[0]), *(c.rjust(width) for c, width in zip(row[1:], widths[1:], strict=True))]
            for row in rows
        )
        return "\n".join("  ".join(line).rstrip() for line in lines)


def interference(deltas: Sequence[SparseDelta], labels: Sequence[str], sizes: Mapping[str, int]) -> Interference:
    """How much every two of some adapters overlap and disagree, before they are composed.

    Supports are searched, never compared each entry with each, so memory grows with the entries and not with their
    square. Sign conflicts are those of TIES-Merging (Yadav et al., 2023, arXiv 2306.01708, section 3). Supports apart
    are no full cure: adding three tasks cost SHiRA (Bhardwaj et al., 2024, arXiv 2406.13175) 4.4 points, and 3.6 where
    no two touched the same entry.

    Args:
        deltas: Two or more.
        labels: One for each, all different.
        sizes: Entries of each targeted weight.

    Raises:
        AdapterError: For fewer than two deltas, labels that do not tell them apart, values that are not finite, or
            deltas that do not fit ``sizes``, listing all of them.
    """
    if len(deltas) < 2:
        raise AdapterError("interference is between adapters; give two or more")
    if len(labels) != len(deltas) or len(set(labels)) != len(labels):
        raise AdapterError(f"{len(deltas)} adapters need as many labels, all different; these are {', '.join(labels)}")
    check_composable(deltas, sizes)
    pairs = []
    for (first, a), (second, b) in combinations(zip(labels, deltas, strict=True), 2):
        names = joint_names([a, b])
        pairs.append(
            Pair((first, second), {name: _overlap(_part(a, name), _part(b, name), sizes[name]) for name in names})
        )
    return Interference(tuple(pairs))


def layer_of(name: str) -> str:
    """Layer of a weight: its name through the first number, or the module's name where there is none."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1]) or name


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
    return _positions(random_support(free, k, seed, name), taken)


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
    return _positions(top_support(flat[left], k, name=name), taken)


def _part(delta: SparseDelta, name: str) -> tuple[Tensor, Tensor]:
    """Indices ``(k,)`` and values ``(k,)`` float64 of one target on the CPU, none where it is not trained."""
    part = delta.slices.get(name, slice(0, 0))
    return delta.indices[part].cpu(), delta.values.detach()[part].cpu().to(torch.float64)


def _overlap(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], size: int) -> Overlap:
    (indices_a, values_a), (indices_b, values_b) = a, b
    products = values_a[torch.isin(indices_a, indices_b)] * values_b[torch.isin(indices_b, indices_a)]  # both rising
    return Overlap(
        first=len(indices_a),
        second=len(indices_b),
        shared=len(products),
        expected=len(indices_a) * len(indices_b) / max(1, size),
        conflicts=int((products < 0).sum()),
        dot=float(products.sum()),
        first_square=float(values_a.square().sum()),
        second_square=float(values_b.square().sum()),
    )


def _row(label: str, overlap: Overlap) -> list[str]:
    cosine = "-" if overlap.cosine is None else f"{overlap.cosine:.3f}"
    shared, opposed = f"{overlap.shared:,}", f"{overlap.conflicts:,}"
    return [label, shared, f"{overlap.share:.1%}", f"{overlap.expected:,.1f}", opposed, cosine]


def _free_count(size: int, k: int, name: str, taken: Tensor) -> int:
    if len(taken) and not 0 <= int(taken[0]) <= int(taken[-1]) < size:
        raise AdapterError(f"{name}: positions taken lie outside its {size} entries; is this another model?")
    if not 0 <= k <= size - len(taken):
        raise AdapterError(
            f"{name}: {k} entries are asked for, {size - len(taken)} of {size} are free; lower the budget"
        )
    return size - len(taken)


def _positions(ranks: Tensor, taken: Tensor) -> Tensor:
    """Positions of the entries with these ranks among the free ones."""
    free_before = taken - torch.arange(len(taken))  # how many free entries lie below each one taken
    return (ranks + torch.searchsorted(free_before, ranks.to(torch.int64), right=True)).to(torch.int32)
