"""Which positions deserve to enter a moving support: gradient statistics of a few candidates per target.

A dense gradient is looked at once, while it exists, to name the candidates of a window; from then on only their entries
of it are read. The *key* of a position is its flat position plus the sizes of all targets before its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

import torch
from torch import Tensor

from kusabi.adapters.moves import Moves
from kusabi.adapters.support import top_support
from kusabi.errors import listed


@dataclass(frozen=True)
class Entering:
    """Entries on their way in: keys, int64, and the optimizer's state each starts from; one row each."""

    keys: Tensor
    mean: Tensor
    square: Tensor
    age: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, which: Tensor) -> "Entering":
        """Some of them."""
        return Entering(*(getattr(self, field.name)[which] for field in fields(self)))


def blank(keys: Tensor, age: int = 0) -> Entering:
    """Entries without a past."""
    zeros = torch.zeros(len(keys), dtype=torch.float32, device=keys.device)
    return Entering(keys, zeros, zeros, torch.full_like(keys, age, dtype=torch.int32))


def joined(parts: Sequence[Entering], device: torch.device) -> Entering:
    """One after another; none at all is allowed."""
    parts = [blank(torch.empty(0, dtype=torch.int64, device=device)), *parts]
    return Entering(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Entering)))


@dataclass
class _Candidates:
    at: Tensor  # (c,) int64, rising
    running: Tensor  # (c,) gradient of the update in progress, over its micro-batches
    sums: Tensor  # (c,)
    squares: Tensor  # (c,)
    samples: int = 0


class Growth:
    """Running sums of the gradients of every target's candidates, over the updates of one window.

    Args:
        names: Of all targets.
        closed: Target -> positions that never become candidates.
    """

    def __init__(self, names: Sequence[str], closed: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        self.names, self.closed = tuple(names), closed
        self._found: dict[str, _Candidates] = {}

    def watch(self, name: str, dense: Tensor, count: int) -> None:
        """Add one backward; the first one of a window makes its ``count`` largest gradients the candidates.

        Raises:
            AdapterError: If a gradient is not a number.
        """
        flat = dense.reshape(-1)
        if name not in self._found:
            at = self._largest(name, flat.abs(), count)
            zeros = torch.zeros(3, len(at), dtype=torch.float32, device=flat.device)
            self._found[name] = _Candidates(at, zeros[0], zeros[1], zeros[2])
        self._found[name].running += flat[self._found[name].at]

    def _largest(self, name: str, scores: Tensor, count: int) -> Tensor:
        closed = self.closed.get(name)
        if closed is None:
            return top_support(scores, count, name=name).to(scores.device, torch.int64)
        closed = closed.to(scores.device, torch.int64)
        at = top_support(scores.index_fill(0, closed, -1.0), count, name=name).to(scores.device, torch.int64)
        return at[~torch.isin(at, closed)]

    def count(self) -> None:
        """An update is over: what its backwards added up to is one sample."""
        for found in self._found.values():
            found.sums += found.running
            found.squares.addcmul_(found.running, found.running)
            found.running.zero_()
            found.samples += 1

    def clear(self) -> None:
        """A window is over."""
        self._found.clear()

    def best(
        self, group: Mapping[str, int], taken: Tensor, count: int, moves: Moves, betas: tuple[float, float]
    ) -> Entering:
        """The candidates of some targets with the largest |mean gradient|, ties to the lower key.

        Args:
            group: Target -> key of its first position.
            taken: Keys that are not to be had.
            count: How many; fewer come back where there are no more.
            moves: Says how they are seeded.
            betas: Decay of the optimizer's moments.
        """
        found = [(self._found[name], start) for name, start in group.items() if name in self._found]
        seeds = joined([_seeded(of_target, start, moves, betas) for of_target, start in found], taken.device)
        scores = torch.cat([torch.zeros(0, device=taken.device), *(one.sums.abs() / one.samples for one, _ in found)])
        free = torch.nonzero(~torch.isin(seeds.keys, taken)).flatten()
        first = top_support(scores[free], count, name=listed(list(group)))
        return seeds.rows(free[first.to(free.device, torch.int64)])

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """All state between two updates."""
        found = [self._found.get(name) for name in self.names]
        state = {
            "counts": torch.tensor([len(one.at) if one else 0 for one in found]),
            "samples": torch.tensor([one.samples if one else 0 for one in found]),
        }
        for part, dtype in {"at": torch.int64, "sums": torch.float32, "squares": torch.float32}.items():
            empty = torch.empty(0, dtype=dtype, device=device)
            state[part] = torch.cat([empty, *(getattr(one, part) for one in found if one)])
        return state

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take the state of a checkpoint."""
        counts = tensors["counts"].tolist()
        parts = (tensors[part].to(device, copy=True).split(counts) for part in ("at", "sums", "squares"))
        rows = zip(self.names, *parts, tensors["samples"].tolist(), strict=True)
        self._found = {
            name: _Candidates(at, torch.zeros_like(sums), sums, squares, samples)
            for name, at, sums, squares, samples in rows
            if samples
        }


def _seeded(found: _Candidates, start: int, moves: Moves, betas: tuple[float, float]) -> Entering:
    n = found.samples
    mean, square = found.sums / n, found.squares / n
    match moves.seeding:
        case "mean":  # SpIEL's age counts the update to come, ours those that were
            age = n - 1
        case "unbiased":
            mean, square, age = mean * (1 - betas[0] ** n), square * (1 - betas[1] ** n), n
        case "zero":
            return blank(found.at + start)
    return Entering(found.at + start, mean, square, torch.full_like(found.at, age, dtype=torch.int32))
