"""How adapters get into each other's way, measured before they are composed.

The card counts what two supports share and how their values disagree there. A low-rank part is added to every position
of its weights: it shares all that the other one has there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from kusabi.adapters.compose import check_composable, joint_names
from kusabi.adapters.part import WeightDelta
from kusabi.errors import AdapterError

Parts = WeightDelta | Sequence[WeightDelta]


@dataclass(frozen=True)
class Overlap:
    """What two adapters do to the same weights; ``a + b`` is what they do to both sets of weights together.

    Attributes:
        first: Entries that the first one is added to.
        second: Entries that the second one is added to.
        shared: Entries that both are added to.
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


def interference(adapters: Sequence[Parts], labels: Sequence[str], sizes: Mapping[str, int]) -> Interference:
    """How much every two of some adapters overlap and disagree, before they are composed.

    Supports are searched, never compared each entry with each, so memory grows with the entries and not with their
    square. Sign conflicts are those of TIES-Merging (Yadav et al., 2023, arXiv 2306.01708, section 3). Supports apart
    are no full cure: adding three tasks cost SHiRA (Bhardwaj et al., 2024, arXiv 2406.13175) 4.4 points, and 3.6 where
    no two touched the same entry.

    Args:
        adapters: Two or more, each a part that is added to weights, or several that are added together.
        labels: One for each, all different.
        sizes: Entries of each targeted weight.

    Raises:
        AdapterError: For fewer than two adapters, labels that do not tell them apart, values that are not finite, or
            adapters that do not fit ``sizes``, listing all of them.
    """
    if len(adapters) < 2:
        raise AdapterError("interference is between adapters; give two or more")
    if len(labels) != len(adapters) or len(set(labels)) != len(labels):
        raise AdapterError(
            f"{len(adapters)} adapters need as many labels, all different; these are {', '.join(labels)}"
        )
    sources = [[adapter] if isinstance(adapter, WeightDelta) else list(adapter) for adapter in adapters]
    check_composable(sources, sizes)
    pairs = []
    for (first, a), (second, b) in combinations(zip(labels, sources, strict=True), 2):
        targets = {}
        for name in joint_names([*a, *b]):
            targets[name] = _overlap(_added(a, name, sizes[name]), _added(b, name, sizes[name]), sizes[name])
        pairs.append(Pair((first, second), targets))
    return Interference(tuple(pairs))


def layer_of(name: str) -> str:
    """Layer of a weight: its name through the first number, or the module's name where there is none."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1]) or name


def _added(parts: Sequence[WeightDelta], name: str, size: int) -> tuple[Tensor, Tensor]:
    """Indices ``(k,)`` and amounts ``(k,)`` float64 of one weight on the CPU, none where nothing is added."""
    found = [part.added(name) for part in parts if name in part.weights]
    at = [torch.arange(size) if where is None else where.detach().cpu().to(torch.int64) for where, _ in found]
    amounts = [amount.detach().flatten().cpu().to(torch.float64) for _, amount in found]
    if len(found) == 1:
        return at[0], amounts[0]
    union, rows = torch.cat([torch.empty(0, dtype=torch.int64), *at]).unique(return_inverse=True)
    total = torch.zeros(len(union), dtype=torch.float64)
    return union, total.index_add_(0, rows, torch.cat([torch.empty(0, dtype=torch.float64), *amounts]))


def _overlap(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], size: int) -> Overlap:
    (indices_a, values_a), (indices_b, values_b) = a, b
    if len(indices_b) == size:  # all positions: what is shared are those of the other, and nothing need be searched
        products = values_a * values_b[indices_a]
    elif len(indices_a) == size:
        products = values_a[indices_b] * values_b
    else:  # both rising
        products = values_a[torch.isin(indices_a, indices_b)] * values_b[torch.isin(indices_b, indices_a)]
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
