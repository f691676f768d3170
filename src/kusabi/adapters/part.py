"""What every kind of adapter consists of: trained entries of named tensors, in one flat parameter.

The two ways to join a model are the two subclasses: a ``WeightDelta`` is added to frozen weights and can be merged, an
``Inserted`` part computes beside frozen modules. Training, attaching, storing and scaling know nothing else of a kind.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kusabi.errors import AdapterError, listed


class AdapterPart(nn.Module, ABC):
    """Trained ``values`` at ``indices`` of named tensors.

    One flat fp32 parameter holds every value, an offset table says which slice belongs to which tensor. Indices are
    flat positions inside their own tensor, rising, and survive casts of the module because they are int32 buffers.

    Args:
        supports: Tensor name -> flat positions, shape ``(k,)``, integer, strictly rising. Kept in the given order.

    Raises:
        AdapterError: If there is no tensor, or positions do not rise.
    """

    kind: ClassVar[str]
    values: nn.Parameter
    indices: Tensor

    def __init__(self, supports: Mapping[str, Tensor]) -> None:
        super().__init__()
        if not supports:
            raise AdapterError(f"a {self.kind.replace('_', ' ')} needs at least one target")
        _check_rising(supports)
        self.names = tuple(supports)
        self.slices = _slices(supports, [len(support) for support in supports.values()])
        self.values = nn.Parameter(torch.zeros(sum(map(len, supports.values())), dtype=torch.float32))
        self.register_buffer("indices", torch.cat([s.to(torch.int32) for s in supports.values()]))

    def __len__(self) -> int:
        return self.values.numel()

    @property
    def counts(self) -> tuple[int, ...]:
        """Entries of each tensor, in the order of ``names``."""
        return tuple(part.stop - part.start for part in self.slices.values())

    def place(self, counts: Sequence[int], indices: Tensor, values: Tensor) -> None:
        """Take other entries of the same tensors; the parameter stays the same object and loses its gradient.

        Args:
            counts: Entries of each tensor.
            indices: ``(sum(counts),)``, strictly rising within every tensor.
            values: ``(sum(counts),)``.

        Raises:
            AdapterError: If these do not belong together; nothing is changed then.
        """
        if len(counts) != len(self.names) or not sum(counts) == len(indices) == len(values):
            raise AdapterError(
                f"{len(counts)} counts, {len(indices)} indices and {len(values)} values do not make up one part of "
                f"{len(self.names)} targets"
            )
        slices = _slices(self.names, counts)
        _check_rising({name: indices[part] for name, part in slices.items()})
        self.slices = slices
        self.indices = indices.to(self.indices.device, torch.int32, copy=True)
        self.values.grad = None
        self.values.data = values.detach().to(self.values.device, self.values.dtype, copy=True)

    def parts(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Per tensor: name, indices ``(k,)`` int32, values ``(k,)`` as a view of the flat parameter's data."""
        for name, part in self.slices.items():
            yield name, self.indices[part], self.values.data[part]

    @abstractmethod
    def mismatches(self, module: nn.Module) -> list[str]:
        """Every reason why this part does not fit a model, in words; empty where it fits."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the card must say, beside names and entries, to build the part again: plain JSON data."""

    @classmethod
    @abstractmethod
    def build(cls, settings: Mapping[str, Any], supports: Mapping[str, Tensor]) -> Self:
        """The part of these settings and positions, all values zero.

        Raises:
            AdapterError: If the settings make no sense: they may come from a hostile card.
        """

    @abstractmethod
    def rescale(self, alpha: float) -> None:
        """Weaken what the part adds to ``alpha`` times it, in place; at 0 the model is the frozen one."""

    @property
    def forwards(self) -> int:
        """How many forwards of the same batch an update takes: ``draw`` is told their numbers from 0."""
        return 1

    @property
    def sizes(self) -> dict[str, int]:
        """Positions that each of its own tensors has; those of the backbone's are the backbone's to say."""
        return {}

    def draw(self, seed: int, step: int, number: int) -> None:
        """Before forward ``number`` of update ``step``: take the random choices of that forward, if there are any."""

    def settle(self, rate: float, progress: float) -> None:
        """After an update of learning rate ``rate``, with a share ``progress`` of all updates done."""

    def finished(self) -> "AdapterPart":
        """The part to keep after training; what only training needed is gone."""
        return self

    def extra_repr(self) -> str:  # noqa: D102 (torch's own hook)
        return f"entries={len(self)}, targets={len(self.names)}"


class WeightDelta(AdapterPart, ABC):
    """A part that is added to frozen weights: attached by writing, merged for good, trained on a working copy."""

    @property
    @abstractmethod
    def weights(self) -> tuple[str, ...]:
        """Names of the backbone's weights that it is added to."""

    @abstractmethod
    def added(self, weight: str) -> tuple[Tensor | None, Tensor]:
        """Flat positions in one weight, rising, and what is added there, fp32; None for all positions in order."""

    @abstractmethod
    def take(self, weight: str, dense: Tensor) -> None:
        """Add what a dense gradient of a weight means to the gradient of ``values``; it must not be kept."""

    def beside(self, module: nn.Module) -> dict[str, RemovableHandle]:
        """Weights that are trained by a hook on their layer instead of on a working copy; none by default."""
        return {}


class Inserted(AdapterPart, ABC):
    """A part that computes beside frozen modules, through hooks; it cannot be merged."""

    @abstractmethod
    def join(self, module: nn.Module) -> list[RemovableHandle]:
        """Hook into the modules; differentiable in ``values``. All of it, or nothing and an exception."""


def check_fits(part: AdapterPart, module: nn.Module) -> None:
    """Refuse a part that does not fit a model; see ``check_all_fit``."""
    check_all_fit((part,), module)


def check_all_fit(parts: Iterable[AdapterPart], module: nn.Module) -> None:
    """Refuse an adapter of which a part does not fit a model.

    Raises:
        AdapterError: With every mismatch of every part; what several parts say in the same words is said once. And if
            the model is what ``torch.compile`` gave.
    """
    if hasattr(module, "_orig_mod"):
        raise AdapterError(
            "this is a compiled model, not the model itself; give the module that was compiled (its _orig_mod): what "
            "was compiled of it follows"
        )
    if wrong := list(dict.fromkeys(line for part in parts for line in part.mismatches(module))):
        raise AdapterError("the adapter does not fit this model: " + listed(wrong, "; "))


def on_leaving(stack: ExitStack, undo: Callable[..., Any], *arguments: Any) -> None:
    """Undo something on leaving, twice: Ctrl-C may stop the first time halfway. ``undo`` may be repeated."""
    for _ in range(2):
        stack.callback(undo, *arguments)


def unhook(handles: Iterable[RemovableHandle]) -> None:
    """Remove hooks; those that are gone already are no matter."""
    for handle in handles:
        handle.remove()


def forget_compiled() -> None:
    """Have everything that ``torch.compile`` made compiled anew when it is next called, after hooks came or went.

    Its guards look at weights, but (for speed) not at whether modules have hooks: a model compiled without a part would
    go on without it, and say nothing.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def gradient_of(part: AdapterPart) -> Tensor:
    """The flat gradient of a part, zero where none was taken yet."""
    if part.values.grad is None:
        part.values.grad = torch.zeros_like(part.values)
    return part.values.grad


def _check_rising(supports: Mapping[str, Tensor]) -> None:
    """All in one pass, which is what loading an adapter waits for; one by one only to name the one that is wrong."""
    if all(support.ndim == 1 for support in supports.values()):
        flat = torch.cat(tuple(supports.values()))
        rising = flat.new_ones(len(flat) + 1, dtype=torch.bool)
        rising[1:-1] = flat[1:] > flat[:-1]
        rising[list(accumulate(map(len, supports.values())))] = True  # where the next tensor's positions begin
        if bool(rising.all()) and _within(flat):
            return
    for name, support in supports.items():
        if support.ndim != 1 or not bool((support[1:] > support[:-1]).all()) or not _within(support):
            raise AdapterError(f"{name}: indices must be one rising row of positions below 2^31 without repeats")


def _within(positions: Tensor) -> bool:
    """Whether int32 holds all of them, and none is negative."""
    if not len(positions):
        return True
    lowest, highest = positions.aminmax()
    return int(lowest) >= 0 and int(highest) < 2**31


def _slices(names: Iterable[str], counts: Sequence[int]) -> dict[str, slice]:
    ends = list(accumulate(counts, initial=0))
    return {name: slice(*ends[i : i + 2]) for i, name in enumerate(names)}
