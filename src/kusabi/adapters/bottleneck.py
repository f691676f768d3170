"""Inserted down-up blocks of which only the surviving entries exist (SparseAdapter, He et al., arXiv 2210.04284).

Requirements this file exists for:
- pruned entries are zero: small dense matrices are made of ``values`` in each forward, differentiably;
- a block whose ``up`` is zero changes no bit of what passes, not even the sign of a zero, and still learns;
- a mask of dropout and the choice of an expert are functions of (seed, update, forward, point), so that a stopped
  training goes on bitwise; without ``draw`` there is neither.

A block computes in the type of the stream it is in, and under autocast as any other linear layer.
"""

import hashlib
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from kusabi.adapters.bottleneck_form import Form, checked_form
from kusabi.adapters.experts import active_expert, shared_out
from kusabi.adapters.insertion import input_width, output_width, source_of, submodule
from kusabi.adapters.part import Inserted, unhook
from kusabi.errors import AdapterError, listed

_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Bottleneck(Inserted):
    """``h + scale * (act(x down' + down_bias) up' + up_bias)`` at every point, x being h or the sublayer's input.

    ``<point>.down`` is ``(b, d)``, ``<point>.down_bias`` ``(b,)``, ``<point>.up`` ``(d, b)``, ``<point>.up_bias``
    ``(d,)``, in this order. All values are zero here; ``bottleneck_birth`` draws them.

    Args:
        form: Everything beside the entries.
        supports: Tensor -> flat positions of its surviving entries; points in any order, biases whole.

    Raises:
        AdapterError: With everything that does not belong together.
    """

    kind = "bottleneck"

    def __init__(self, form: Form, supports: Mapping[str, Tensor]) -> None:
        points = list(dict.fromkeys(name.rpartition(".")[0] for name in supports))
        if wrong := _wrong_supports(form, points, supports):
            raise AdapterError(f"a bottleneck's entries do not fit: {listed(wrong, '; ')}")
        super().__init__(supports)
        self.form = form
        self.points = tuple(points)
        self._drawn: tuple[int, int, int] | None = None
        self._owners: dict[str, Tensor] = {}

    @classmethod
    def build(cls, settings: Mapping[str, Any], supports: Mapping[str, Tensor]) -> "Bottleneck":
        """The part of a card, its values zero.

        Raises:
            AdapterError: With everything that is wrong with the settings, or that does not belong together.
        """
        return cls(checked_form(settings), supports)

    @property
    def sizes(self) -> dict[str, int]:
        """Tensor -> entries that it would have unpruned, in the order of ``names``."""
        return {name: size for point in self.points for name, size in self.form.sizes(point).items()}

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return self.form.model_dump(mode="json")

    @property
    def forwards(self) -> int:
        """Two where experts are drawn: MoSA compares the answers of two draws."""
        return 2 if self.form.experts > 1 else 1

    def draw(self, seed: int, step: int, number: int) -> None:
        """Let the next forward drop features and use one expert a point; the last one before ``settle`` counts."""
        self._drawn = (seed, step, number)

    def settle(self, rate: float, progress: float) -> None:
        """Nothing is random until the next ``draw``."""
        self._drawn = None

    def rescale(self, alpha: float) -> None:  # noqa: D102
        for name, part in self.slices.items():
            if name.endswith((".up", ".up_bias")):
                self.values.data[part] *= alpha

    def mismatches(self, module: nn.Module) -> list[str]:
        """Points that the model lacks, or where it is of another width."""
        wrong = []
        for point in self.points:
            width = self.form.widths[point]
            if (found := submodule(module, point)) is None:
                wrong.append(f"{point}: the model has no such module")
                continue
            if output_width(found) != width:
                wrong.append(f"{point}: a bottleneck of width {width} for an output of width {output_width(found)}")
            if self.form.placement == "parallel":
                source = source_of(module, point)
                if (read := input_width(module.get_submodule(source))) != width:
                    wrong.append(f"{source}: a bottleneck of width {width} for an input of width {read}")
        return wrong

    def join(self, module: nn.Module) -> list[RemovableHandle]:  # noqa: D102
        self._drawn = None
        handles: list[RemovableHandle] = []
        try:
            for point in self.points:
                self._hook(module, point, handles)
            return handles
        except BaseException:
            unhook(handles)
            raise

    def _hook(self, module: nn.Module, point: str, handles: list[RemovableHandle]) -> None:
        source = source_of(module, point)
        traced: dict[str, Tensor] = {}
        of_thread = threading.local()

        def read() -> dict[str, Tensor]:
            """What a parallel block saw go by, if that was at another module; forwards in other threads see others."""
            return traced if torch.compiler.is_compiling() else of_thread.__dict__

        def before(_: nn.Module, args: Any, named: Mapping[str, Any]) -> None:
            read()[point] = _first(args, named)

        def after(_: nn.Module, args: Any, named: Mapping[str, Any], output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            if self.form.placement == "sequential":
                seen = stream
            else:
                seen = _first(args, named) if source == point else read().pop(point)
            stream = _plus(stream, self._added(point, seen))
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        if self.form.placement == "parallel" and source != point:
            handles.append(module.get_submodule(source).register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.get_submodule(point).register_forward_hook(after, with_kwargs=True))

    def _added(self, point: str, seen: Tensor) -> Tensor:
        """What the block of a point answers to ``(..., d)``."""
        form, width = self.form, self.form.widths[point]
        dense = self._dense(point, seen)
        if form.norm:
            seen = F.layer_norm(seen, (width,))
        down, up = dense[f"{point}.down"].view(form.size, width), dense[f"{point}.up"].view(width, form.size)
        inner = _ACTIVATIONS[form.activation](F.linear(seen, down, dense.get(f"{point}.down_bias")))
        return F.linear(self._dropped(point, inner), up, dense.get(f"{point}.up_bias")) * form.scale

    def _dense(self, point: str, like: Tensor) -> dict[str, Tensor]:
        """The flat dense tensors of a point, in type and place of the stream."""
        sizes = self.form.sizes(point)
        parts = [self.slices[name] for name in sizes]
        own = slice(parts[0].start, parts[-1].stop)  # one slice: each would have a gradient of all values
        counts = [part.stop - part.start for part in parts]
        values = self.values[own].to(like.device, like.dtype).split(counts)
        indices = self.indices[own].to(like.device, torch.int64).split(counts)
        dense = {}
        for (name, size), at, entries in zip(sizes.items(), indices, values, strict=True):
            if name.endswith(".up"):
                entries = self._of_expert(name, entries)
            dense[name] = entries if len(at) == size else entries.new_zeros(size).index_copy(0, at, entries)
        return dense

    def _of_expert(self, name: str, entries: Tensor) -> Tensor:
        if self.form.experts == 1 or not self._random():
            return entries
        assert self._drawn is not None
        if name not in self._owners or len(self._owners[name]) != len(entries):
            self._owners[name] = shared_out(len(entries), self.form.experts, self.form.seed, name)
        active = active_expert(self.form.experts, *self._drawn, name)
        return entries * (self._owners[name] == active).to(entries.device)

    def _dropped(self, point: str, inner: Tensor) -> Tensor:
        if self.form.dropout == 0 or not self._random():
            return inner
        assert self._drawn is not None
        key = hashlib.sha256("/".join(map(str, (*self._drawn, point))).encode()).digest()
        stream = torch.Generator(inner.device).manual_seed(int.from_bytes(key[:8], "little") >> 1)
        hidden = torch.rand(inner.shape, generator=stream, device=inner.device) < self.form.dropout
        return inner.masked_fill(hidden, 0.0) / (1 - self.form.dropout)

    def _random(self) -> bool:
        """Whether this forward is one of training: announced, and with a gradient to take."""
        return self._drawn is not None and torch.is_grad_enabled()


def _first(args: Any, named: Mapping[str, Any]) -> Tensor:
    """The stream among a module's inputs; transformers passes it first or by this name."""
    return args[0] if args else named["hidden_states"]


def _plus(stream: Tensor, added: Tensor) -> Tensor:
    """``stream + added`` in the stream's type; bits kept where nothing is added (``-0.0 + 0.0`` is ``0.0``)."""
    # 0.0 minus either zero is 0.0, and x - 0.0 is x, bitwise; elsewhere this is the ordinary sum.
    return stream - (0.0 - added.to(stream.dtype))


def _wrong_supports(form: Form, points: list[str], supports: Mapping[str, Tensor]) -> list[str]:
    wrong = [f"{point}: needs a width and entries" for point in sorted(form.widths.keys() ^ set(points))]
    if wrong:
        return wrong
    sizes = {name: size for point in points for name, size in form.sizes(point).items()}
    wrong = [f"{name}: does not belong here" for name in supports if name not in sizes]
    wrong += [f"{name}: is missing" for name in sizes if name not in supports]
    if not wrong and tuple(supports) != tuple(sizes):
        wrong.append("the tensors of a point must follow each other as down, down_bias, up, up_bias")
    for name, size in sizes.items():
        support = supports.get(name)
        if support is None or not len(support):
            continue
        if int(support.max()) >= size:
            wrong.append(f"{name}: index {int(support.max())} is outside its {size} entries")
        elif name.endswith("_bias") and len(support) != size:
            wrong.append(f"{name}: has {len(support)} of {size} entries; biases are stored whole")
    return wrong
