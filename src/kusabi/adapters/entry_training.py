"""Train a sparse delta without dense gradients: a product is taken only where an entry is, and no weight is cast twice.

Serves plain linear layers on the CPU, where a dense gradient of a weight costs as much as its forward pass, and most
of it is thrown away. Each layer computes with the tensor it would be cast to: the weight itself where training needs
no other type, else one copy, in which only entries are ever written. Forward passes are bitwise those of
``merged_training``; gradients differ by rounding, since entries are summed in fp32.
"""

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kusabi.adapters.fold import folded
from kusabi.adapters.part import AdapterPart, check_all_fit, gradient_of, on_leaving
from kusabi.adapters.recomputing import recipe
from kusabi.adapters.sparse_delta import SparseDelta

TOKENS = 640  # rows that are multiplied at a time: their transposes stay in a core's own cache
MOST = 0.02  # trained share of a weight above which its dense gradient is quicker
LITTLE = sys.byteorder == "little"  # the first feature of a pair is in the lower bits
FEW = 0.55  # share of a side that holds all entries, below which picking its features beats a transpose of them all


class EntryCopy:
    """The targeted weights as forward passes see them.

    Call ``fold()`` after every change of the values, ``follow()`` after a change of the support.

    Args:
        delta: What is trained.
        layers: Target -> the layer that holds it.
        dtype: Of the forward passes.
    """

    def __init__(self, delta: SparseDelta, layers: dict[str, nn.Linear], dtype: torch.dtype) -> None:
        self.delta, self.layers = delta, layers
        self.weights = {name: layer.weight.detach().to(dtype).contiguous() for name, layer in layers.items()}
        self.biases = {name: None if x.bias is None else x.bias.detach().to(dtype) for name, x in layers.items()}
        self.dtype = dtype
        self._last: tuple[weakref.ref[Tensor], int, Tensor] | None = None
        self._read_entries()

    def _read_entries(self) -> None:
        places = {name: self.delta.indices[part].to(torch.int64) for name, part in self.delta.slices.items()}
        patterns = {name: _Pattern(at, self.weights[name].shape) for name, at in places.items()}
        originals = torch.cat(
            [self.layers[name].weight.detach().reshape(-1)[at].float() for name, at in places.items()]
        )
        entries = {name: originals[part] for name, part in self.delta.slices.items()}
        # At once: Ctrl-C must find positions and originals that belong together.
        self._held = (originals, {name: (at, entries[name], patterns[name]) for name, at in places.items()})

    @property
    def _entries(self) -> dict[str, tuple[Tensor, Tensor, "_Pattern"]]:
        return self._held[1]

    @torch.no_grad()
    def fold(self) -> None:
        """Write ``original + value`` at every entry."""
        sums = folded(self._held[0], self.delta.values.data).to(self.dtype)
        for name, (at, _, _) in self._entries.items():
            self._write(name, at, sums[self.delta.slices[name]])

    @torch.no_grad()
    def follow(self) -> None:
        """Take up a support that has moved: what left is the frozen value again, bitwise, what entered is folded."""
        for name in self._entries:
            self.unfold(name)
        self._read_entries()
        self.fold()

    @torch.no_grad()
    def unfold(self, name: str) -> None:
        """Write the originals back: where no copy was needed, the tensor is the frozen weight."""
        at, originals, _ = self._entries[name]
        self._write(name, at, originals)

    def _write(self, name: str, at: Tensor, entries: Tensor) -> None:
        weight = self.weights[name]
        weight.view(-1).index_copy_(0, at, entries.to(weight.dtype))

    def forward(self, name: str) -> Callable[..., Tensor]:
        """What the layer computes meanwhile."""

        def linear(input: Tensor) -> Tensor:  # as nn.Linear calls it
            found: Any = _EntryLinear.apply(input, self.delta.values, self, name)
            return found

        return linear

    def cast(self, input: Tensor) -> Tensor:
        """In the type of the forward passes: once where several layers in a row are asked about the same tensor."""
        if input.dtype == self.dtype:
            return input
        if self._last is None or self._last[0]() is not input or self._last[1] != input._version:
            self._last = (weakref.ref(input), input._version, input.to(self.dtype))
        return self._last[2]

    def take(self, name: str, outputs: Tensor, inputs: Tensor) -> None:
        """Add the gradients of a layer's entries; ``outputs`` ``(t, rows)`` is that of what it gave for ``inputs``."""
        own, pattern = gradient_of(self.delta)[self.delta.slices[name]], self._entries[name][2]
        for start in range(0, len(inputs), TOKENS):
            rows = slice(start, start + TOKENS)
            own += pattern.product(outputs[rows], inputs[rows])


class _Pattern:
    """Entries at rising flat positions of a weight, and the rows and columns that hold them."""

    def __init__(self, at: Tensor, shape: Sequence[int]) -> None:
        sides = (at // shape[1], at % shape[1])
        (self.rows, rows), (self.columns, columns) = (_few(side, size) for side, size in zip(sides, shape, strict=True))
        height, width = (
            size if few is None else len(few) for size, few in zip(shape, (self.rows, self.columns), strict=True)
        )
        ends = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=height).cumsum(0)])
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Sparse CSR", UserWarning
            )  # beta, says torch; the format is as old as 1.13
            zeros = torch.zeros(len(at))
            self.matrix = torch.sparse_csr_tensor(ends, columns, zeros, (height, width), check_invariants=True)

    def product(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """``outputs.T @ inputs`` at the entries, in fp32."""
        # Both with tokens innermost, as the product wants them: it would transpose the inputs once more.
        left, right = (_tokens_last(side, few) for side, few in ((outputs, self.rows), (inputs, self.columns)))
        return torch.sparse.sampled_addmm(self.matrix, left, right.t(), beta=0).values()


def _few(side: Tensor, size: int) -> tuple[Tensor | None, Tensor]:
    """The features of a side that hold entries, where they are few, and where among them each entry is."""
    used, among = side.unique(return_inverse=True)
    return (used, among) if len(used) < FEW * size else (None, side)


def _tokens_last(side: Tensor, few: Tensor | None) -> Tensor:
    """``(tokens, features)`` the other way round, in fp32. Tiles are moved where a transpose keeps its type."""
    if few is not None:
        return side.t().index_select(0, few).float()
    return _pairs_last(side) if _paired(side) else side.t().contiguous().float()


def _paired(side: Tensor) -> bool:
    """Whether two features in a row can be read as one number of 32 bits."""
    steps = (side.shape[1], side.stride(0), side.storage_offset())
    return side.dtype == torch.bfloat16 and LITTLE and side.stride(1) == 1 and not any(step % 2 for step in steps)


def _pairs_last(side: Tensor) -> Tensor:
    """Half as many moves: pairs of features change places, then bf16 becomes fp32 by 16 bits of zeros behind it."""
    pairs = side.view(torch.int32).t()
    # A copy that transposes runs on one core, a selection of everything on all.
    moved = pairs.contiguous() if torch.get_num_threads() == 1 else pairs.index_select(0, torch.arange(len(pairs)))
    found = torch.empty(len(pairs), 2, len(side), dtype=torch.int32)
    torch.bitwise_left_shift(moved, 16, out=found[:, 0])
    torch.bitwise_and(moved, -(2**16), out=found[:, 1])
    return found.view(torch.float32).flatten(0, 1)


class _EntryLinear(torch.autograd.Function):
    """The values are an input so that a layer whose inputs need no gradient has a backward pass, too."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, _values: Tensor, copy: EntryCopy, name: str) -> Tensor:
        cast = copy.cast(inputs)
        kept, ctx.inputs = recipe(cast)
        ctx.save_for_backward(*kept)
        ctx.copy, ctx.name, ctx.dtype = copy, name, inputs.dtype
        return F.linear(cast, copy.weights[name], copy.biases[name])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, rows = ctx.inputs(*ctx.saved_tensors), gradient.flatten(0, -2)
        ctx.copy.take(ctx.name, rows, inputs.flatten(0, -2))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        # As rows: of a gradient that is not contiguous, torch would copy the weight for every picture.
        return (rows @ ctx.copy.weights[ctx.name]).view(inputs.shape).to(ctx.dtype), None, None, None


def plain_layers(module: nn.Module, parts: Sequence[AdapterPart]) -> dict[str, nn.Linear] | None:
    """Target -> its layer, where a lone sparse delta can be trained by its entries; else None.

    That takes linear layers on the CPU that compute as ``nn.Linear`` does, weights that no second layer shares, few
    entries in each, and no ``torch.compile``, which would have to follow layers that come and go.
    """
    if len(parts) != 1 or type(delta := parts[0]) is not SparseDelta or delta.values.device.type != "cpu":
        return None
    holders: dict[int, list[nn.Module]] = {}
    for layer in module.modules():
        if layer._compiled_call_impl is not None:
            return None
        for weight in layer._parameters.values():
            if weight is not None:
                holders.setdefault(id(weight), []).append(layer)
    layers: dict[str, nn.Linear] = {}
    for name, count in zip(delta.names, delta.counts, strict=True):
        path, _, leaf = name.rpartition(".")
        layer = module.get_submodule(path)
        if not isinstance(layer, nn.Linear) or type(layer) is not nn.Linear or leaf != "weight":
            return None
        shared = len(holders[id(layer.weight)]) > 1
        if shared or "forward" in vars(layer) or count > MOST * layer.weight.numel():
            return None
        layers[name] = layer
    return layers


@contextmanager
def entry_copy(
    module: nn.Module, delta: SparseDelta, layers: dict[str, nn.Linear], dtype: torch.dtype
) -> Iterator[EntryCopy]:
    """Train a sparse delta on a model; the model is as it was on leaving, bitwise.

    Args:
        module: The model.
        delta: That fits it.
        layers: As ``plain_layers`` gives them.
        dtype: That forward passes are cast to.

    Raises:
        AdapterError: Listing all mismatches, if the delta does not fit the module.
    """
    check_all_fit((delta,), module)
    with ExitStack() as stack:
        copy = EntryCopy(delta, layers, dtype)
        for name, layer in layers.items():
            if copy.weights[name].data_ptr() == layer.weight.data_ptr():
                on_leaving(stack, copy.unfold, name)
            on_leaving(stack, _plain, layer)
            layer.forward = copy.forward(name)
        copy.fold()
        yield copy


def _plain(layer: nn.Linear) -> None:
    vars(layer).pop("forward", None)
