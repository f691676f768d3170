"""A support that moves while training: weak entries leave, others enter, and the number of entries is kept.

Requirements this file exists for:
- an entry that leaves gives its frozen value back bitwise (``WorkingCopy.follow`` rewrites it, nothing is subtracted);
- what moves is a function of the gradients and of (seed, target name, update), with ties to the lower index, so that a
  training that was stopped and gone on with is bitwise the one that was not;
- dense gradients are never kept (see ``growth``).
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from kusabi.adapters.entry_training import EntryCopy
from kusabi.adapters.free_support import free_positions
from kusabi.adapters.growth import Entering, Growth, blank, joined
from kusabi.adapters.merged_training import WorkingCopy
from kusabi.adapters.moves import Move, Moves
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import allocate, random_support, top_support


class Moments(Protocol):
    """The optimizer's state per entry, uncorrected for bias, and the decay of both moments."""

    mean: Tensor
    square: Tensor
    age: Tensor

    @property
    def betas(self) -> tuple[float, float]: ...  # noqa: D102


class MovingSupport:
    """Moves the entries of a delta and of its optimizer, at the updates that ``moves`` says.

    For each update: backward with ``watch`` on the working copy, ``narrow()``, the optimizer's step, ``advance(copy)``.

    Args:
        delta: Whose entries move; the present ones are the budget.
        moments: State of the delta's optimizer; tensors are replaced under their names.
        moves: When and how.
        steps: Updates in all, where the replaced share reaches zero.
        seed: Of every random draw.
        closed: Target -> positions that never enter, rising, such as those of other adapters.
    """

    def __init__(
        self, delta: SparseDelta, moments: Moments, moves: Moves, *, steps: int, seed: int,
        closed: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.delta, self.moments, self.moves = delta, moments, moves
        self.steps, self.seed, self.step = steps, seed, 0
        device = delta.indices.device
        self._closed = {name: at.to(device, torch.int64) for name, at in closed.items()}
        self._growth = Growth(delta.names, self._closed)
        self._budget = delta.counts
        self._drawn = torch.ones(len(delta) if moves.union else 0, dtype=torch.bool, device=delta.indices.device)

    @torch.no_grad()
    def watch(self, name: str, dense: Tensor) -> None:
        """Take a target's dense gradient of one backward into account, if its window is open."""
        if not self.moves.by_gradient:
            return
        due = self.moves.next_due(self.step + 1)
        share = self.moves.replaced(due, self.steps)
        if share == 0 or due - self.step > self.moves.window:
            return
        # As many as a target has entries: so many are never all taken by entries that stay. Where entries change their
        # target, all that move may come to this one.
        own = self.delta.slices[name]
        more = int(len(self.delta) * share) if self.moves.scope == "all" else 0
        self._growth.watch(name, dense, own.stop - own.start + more)

    def narrow(self) -> None:
        """Between backward and the optimizer's step: only drawn entries learn from this gradient (SO's union)."""
        if self.moves.union and self.delta.values.grad is not None:
            self.delta.values.grad.masked_fill_(~self._drawn, 0.0)

    @torch.no_grad()
    def advance(self, copy: WorkingCopy | EntryCopy) -> Move | None:
        """After the optimizer's step: count the update, move if it is time, and fold the values into the weights."""
        self.step += 1
        self._growth.count()
        if self.moves.union:
            self._prune()
        move = None
        if self.moves.due(self.step) and self.step < self.steps:
            sizes = [copy.weights[name].numel() for name in self.delta.names]
            starts = list(accumulate(sizes, initial=0))
            move = self._draw(sizes, starts) if self.moves.union else self._replace(sizes, starts)
            self._growth.clear()
        if move:
            copy.follow()
        else:
            copy.fold()
        return move

    def tensors(self) -> dict[str, Tensor]:
        """All state between two updates, for a checkpoint; the optimizer keeps its own."""
        growth = self._growth.tensors(self.delta.indices.device)
        return {
            "step": torch.tensor(self.step),
            "budget": torch.tensor(self._budget),
            "counts": torch.tensor(self.delta.counts),
            "indices": self.delta.indices,
            "values": self.delta.values.data,
            "drawn": self._drawn,
            **{f"growth.{name}": tensor for name, tensor in growth.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint of the same training, into any delta of the same targets."""
        device = self.delta.indices.device
        self.delta.place(tensors["counts"].tolist(), tensors["indices"], tensors["values"])
        self.step, self._budget = int(tensors["step"]), tuple(tensors["budget"].tolist())
        self._drawn = tensors["drawn"].to(device, copy=True)
        parts = {name: tensor for name, tensor in tensors.items() if name.startswith("growth.")}
        self._growth.restore({name.removeprefix("growth."): tensor for name, tensor in parts.items()}, device)

    def _replace(self, sizes: Sequence[int], starts: Sequence[int]) -> Move | None:
        """Drop and grow within every target, or among all of them."""
        share = self.moves.replaced(self.step, self.steps)
        strength = (self.delta.values.data if self.moves.weakest == "value" else self.moments.mean).abs()
        numbers = range(len(sizes))
        keys = self._keys(starts)
        staying = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        entering: list[Entering] = []
        for group in [numbers] if self.moves.scope == "all" else [range(i, i + 1) for i in numbers]:
            names = [self.delta.names[i] for i in group]
            own = slice(self.delta.slices[names[0]].start, self.delta.slices[names[-1]].stop)
            order = strength[own].sort(stable=True).indices + own.start
            count = int(len(order) * share)
            random = int(self.moves.rho * count + 0.5)
            weak, strong = order[:count], order[count:]
            firsts = {name: starts[i] for name, i in zip(names, group, strict=True)}
            grown = self._growth.best(firsts, keys[strong], count - random, self.moves, self.moments.betas)
            back = torch.isin(keys[weak], grown.keys)  # weak, but wanted by their gradients: they stay as they are
            grown = grown.rows(~torch.isin(grown.keys, keys[weak]))
            shut = [self._closed[name] + start for name, start in firsts.items() if name in self._closed]
            full = torch.cat([keys[own], grown.keys, *shut]).sort().values
            drawn = self._random(group, sizes, starts, full, random)
            staying[weak[~back][: len(grown) + len(drawn)]] = False
            entering += [grown, drawn]
        return self._lay(keys, staying, joined(entering, keys.device), starts)

    def _random(self, group: range, sizes: Sequence[int], starts: Sequence[int], taken: Tensor, count: int) -> Entering:
        """Free positions of some targets, in proportion to what is free: draws of (seed, target name, update)."""
        bounds = torch.searchsorted(taken, torch.tensor(starts, device=taken.device)).tolist()
        free = [sizes[i] - (bounds[i + 1] - bounds[i]) for i in group]
        drawn = []
        for i, left, share in zip(group, free, allocate(count, free), strict=True):
            full = taken[bounds[i] : bounds[i + 1]] - starts[i]
            drawn.append(free_positions(full, self._draws(i, left, share)) + starts[i])
        return blank(torch.cat(drawn))

    def _draws(self, target: int, size: int, count: int) -> Tensor:
        name = f"{self.delta.names[target]}/{self.step}"
        return random_support(size, count, self.seed, name).to(torch.int64)

    def _draw(self, sizes: Sequence[int], starts: Sequence[int]) -> Move | None:
        """SO's next random positions; those that are no entries yet become entries for good."""
        keys = self._keys(starts)
        none = torch.empty(0, dtype=torch.int64, device=keys.device)
        parts = []
        for i, (name, size) in enumerate(zip(self.delta.names, sizes, strict=True)):
            shut = self._closed.get(name, none)
            parts.append(free_positions(shut, self._draws(i, size - len(shut), self._budget[i])) + starts[i])
        drawn = torch.cat(parts)
        entering = blank(drawn[~torch.isin(drawn, keys)], self.step)
        move = self._lay(keys, torch.ones_like(keys, dtype=torch.bool), entering, starts)
        self._drawn = torch.isin(self._keys(starts), drawn)
        return move

    def _prune(self) -> None:
        """Keep the moments of each target's M largest |m|; the others start anew when they are drawn again."""
        for name, count in zip(self.delta.names, self._budget, strict=True):
            mean, square = self.moments.mean[self.delta.slices[name]], self.moments.square[self.delta.slices[name]]
            gone = torch.ones_like(mean, dtype=torch.bool)
            gone[top_support(mean.abs(), count, name=name).to(gone.device, torch.int64)] = False
            mean.masked_fill_(gone, 0.0)
            square.masked_fill_(gone, 0.0)

    def _keys(self, starts: Sequence[int]) -> Tensor:
        parts = zip(self.delta.parts(), starts[:-1], strict=True)
        return torch.cat([indices.to(torch.int64) + start for (_, indices, _), start in parts])

    def _lay(self, keys: Tensor, staying: Tensor, entering: Entering, starts: Sequence[int]) -> Move | None:
        """Lay the entries out anew, in the delta and in the optimizer."""
        if not len(entering):
            return None
        rows = torch.nonzero(staying).flatten()
        after, order = torch.cat([keys[rows], entering.keys]).sort()
        bounds = torch.searchsorted(after, torch.tensor(starts, device=keys.device)).tolist()
        counts = [last - first for first, last in pairwise(bounds)]
        indices = torch.cat([part - start for part, start in zip(after.split(counts), starts[:-1], strict=True)])
        for part in ("mean", "square", "age"):
            state = getattr(self.moments, part)
            setattr(self.moments, part, torch.cat([state[rows], getattr(entering, part).to(state.dtype)])[order])
        values = torch.cat([self.delta.values.data[rows], torch.zeros_like(entering.mean)])[order]
        self.delta.place(counts, indices, values)
        return Move(torch.cat([rows, torch.full_like(entering.keys, -1)])[order])


def most_changed(delta: SparseDelta, budget: int) -> dict[str, Tensor]:
    """LT-SFT's support: the ``budget`` largest |values| over all targets, ties to the earlier entry.

    Args:
        delta: Of a dense training: every position of every target is an entry.
        budget: Positions in all.

    Returns:
        Target -> rising positions, int32; empty where nothing was chosen.
    """
    chosen = torch.zeros(len(delta), dtype=torch.bool, device=delta.indices.device)
    chosen[top_support(delta.values.data.abs(), budget, name="values").to(chosen.device, torch.int64)] = True
    return {name: indices[chosen[delta.slices[name]]] for name, indices, _ in delta.parts()}
