"""Where one sparse delta lies in one model, found once: swaps after the first make no index and take no memory.

What remains is the work itself: a gather of the originals, one sum over all entries, a scatter; and a scatter to leave.
Everything is on the device of the weights.
"""

from collections.abc import Sequence
from functools import cache
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from kusabi.adapters.part import AdapterPart
from kusabi.adapters.sparse_delta import SparseDelta


class Fold:
    """Positions, and room for originals and for what is written in their place.

    Args:
        part: A delta that fits the model.
        weights: The weights it is added to, as ``weights_of`` gives them.
    """

    def __init__(self, part: SparseDelta, weights: Sequence[nn.Parameter]) -> None:
        self._born = (part.indices, _version(part.indices), part.slices)
        self._shapes = [(weight.shape, weight.dtype, weight.device) for weight in weights]
        device, dtype = weights[0].device, weights[0].dtype
        self._counts = part.counts
        with torch.inference_mode(False):  # both outlive the mode they are made in
            flat = part.indices.to(device, torch.int64)
            self._room = torch.empty(len(part), dtype=dtype, device=device)
            self.positions, self.originals = (list(of.split(self._counts)) for of in (flat, self._room))

    def holds(self, part: AdapterPart, weights: Sequence[nn.Parameter]) -> bool:
        """Whether neither the delta's entries nor the shape, type and place of the weights have changed."""
        indices, version, slices = self._born
        return (
            part.indices is indices
            and _version(indices) == version
            and part.slices is slices
            and len(weights) == len(self._shapes)
            and all(
                (weight.shape, weight.dtype, weight.device) == shape and weight.is_contiguous()
                for weight, shape in zip(weights, self._shapes, strict=True)
            )
        )

    def read(self, weights: Sequence[nn.Parameter]) -> None:
        """Keep what the weights hold now."""
        for weight, at, room in zip(weights, self.positions, self.originals, strict=True):
            _read(weight, at, room)

    def write(self, weights: Sequence[nn.Parameter], values: Tensor) -> None:
        """Write what was kept plus the values ``(k,)``."""
        _scatter(weights, self.positions, folded(self._room, values.to(self._room.device)).split(self._counts))

    def restore(self, weights: Sequence[nn.Parameter]) -> None:
        """Write back what was kept."""
        _scatter(weights, self.positions, self.originals)

    def made(self, originals: Sequence[Tensor]) -> bool:
        """Whether these tensors are the room for originals, all of it."""
        return len(originals) == len(self.originals) and all(map(is_, originals, self.originals))


def folded(originals: Tensor, values: Tensor) -> Tensor:
    """``originals + values`` summed in fp32 and rounded to the originals' dtype; bits kept where the value is zero."""
    return torch.where(values == 0, originals, (originals.float() + values.float()).to(originals.dtype))


def suits(weights: Sequence[nn.Parameter]) -> bool:
    """Whether one pass can serve all weights: of one type, on one device, contiguous."""
    first = weights[0]
    return all(w.dtype == first.dtype and w.device == first.device and w.is_contiguous() for w in weights)


def weights_of(module: nn.Module, names: Sequence[str]) -> list[nn.Parameter] | None:
    """Parameters by name, without walking through the whole module; None if one is not there."""
    found: list[nn.Parameter] = []
    for name in names:
        owner: Any = module
        *path, leaf = _path(name)
        for step in path:
            owner = owner._modules.get(step)
            if owner is None:
                return None
        weight = owner._parameters.get(leaf)
        if weight is None:
            return None
        found.append(weight)
    return found


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; one made in inference mode does not count."""
    return 0 if tensor.is_inference() else tensor._version


@cache
def _path(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _scatter(weights: Sequence[nn.Parameter], positions: Sequence[Tensor], entries: Sequence[Tensor]) -> None:
    for weight, at, fresh in zip(weights, positions, entries, strict=True):
        _write(weight, at, fresh)


def _read(weight: Tensor, at: Tensor, room: Tensor) -> None:
    torch.index_select(weight.detach().view(-1), 0, at, out=room)


def _write(weight: Tensor, at: Tensor, fresh: Tensor) -> None:
    weight.detach().view(-1).index_copy_(0, at, fresh)
