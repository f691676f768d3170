"""Low-rank updates of frozen weights: LoRA (Hu et al., arXiv 2106.09685), and SoRA, whose gates close ranks.

Requirements this file exists for:
- a weight of any shape is a matrix, its first axis by all the others, so that fused attention weights and kernels take
  part; these are trained merged, plain linear layers by a hook beside them, where no dense gradient is ever made;
- A at birth is a function of (seed, weight name) alone, the same on every device, and B is zero: nothing changes;
- a mask of dropout is a function of (seed, update, forward, weight), so that a stopped training goes on bitwise.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from kusabi.adapters.granularity import matrix_shape
from kusabi.adapters.low_rank_settings import SETTINGS, Shrinkage, strength_at, wrong_settings
from kusabi.adapters.part import WeightDelta, gradient_of, unhook
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.support import random_scores
from kusabi.errors import AdapterError, listed


class LowRank(WeightDelta):
    """Adds ``scale * B A`` to weights: ``<weight>.A`` is ``(r, in)``, ``<weight>.B`` ``(out, r)``, all entries trained.

    The scale is ``alpha / r``, or ``alpha / sqrt(r)`` (rsLoRA, Kalajdzievski, arXiv 2312.03732).

    With gates (SoRA, Ding et al., arXiv 2311.11696, section 3) it adds ``scale * B diag(g) A``, ``<weight>.g`` being
    ``(r,)``. After every update, g takes the paper's proximal step: the soft threshold at the learning rate times
    ``shrinkage``. The authors' code subtracts its threshold xi and then zeroes what is below xi once more, so that
    whatever was below 2 xi is lost, and its xi knows no learning rate. With several shrinkages (the paper's sparsifying
    scheduler, section 3.3) the updates fall into as many stages of equal length; each goes on from where the one before
    ended, optimizer included. The authors train each stage over a learning rate of its own; here one rate spans all.

    Args:
        shapes: Weight -> its shape as a matrix, out by in.
        ranks: Weight -> r.
        alphas: Weight -> alpha.
        rank_stabilized: Divide alpha by the root of r.
        dropout: Share of a layer's inputs that A does not see, in forwards announced by ``draw`` only.
        shrinkage: Strength xi of the gates' shrinking per unit of learning rate, or those of the stages, which do not
            fall; None for no gates.

    Raises:
        AdapterError: With everything that is wrong with these.
    """

    kind = "low_rank"

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], ranks: Mapping[str, int], alphas: Mapping[str, float], *,
        rank_stabilized: bool = False, dropout: float = 0.0, shrinkage: Shrinkage = None,
    ) -> None:  # fmt: skip
        wrong = wrong_settings(ranks, alphas, rank_stabilized, dropout, shrinkage)
        if not wrong and not shapes.keys() == ranks.keys() == alphas.keys():
            odd = (shapes.keys() | ranks.keys() | alphas.keys()) - (shapes.keys() & ranks.keys() & alphas.keys())
            wrong = [f"{weight}: needs a shape, a rank and an alpha" for weight in sorted(odd)]
        if wrong:
            raise AdapterError(f"a low-rank adapter cannot be built: {listed(wrong, '; ')}")
        sizes: dict[str, int] = {}
        for weight, (rows, columns) in shapes.items():
            sizes |= {f"{weight}.A": ranks[weight] * columns, f"{weight}.B": rows * ranks[weight]}
            if shrinkage is not None:
                sizes[f"{weight}.g"] = ranks[weight]
        super().__init__({name: torch.arange(size) for name, size in sizes.items()})
        self.shapes, self.ranks = dict(shapes), dict(ranks)
        self.alphas = {weight: float(alpha) for weight, alpha in alphas.items()}
        self.rank_stabilized, self.dropout = rank_stabilized, float(dropout)
        self.shrinkage = tuple(shrinkage) if isinstance(shrinkage, Sequence) else shrinkage
        self._drawn: tuple[int, int, int] | None = None

    @classmethod
    def build(cls, settings: Mapping[str, Any], supports: Mapping[str, Tensor]) -> "LowRank":
        """The part of a card, its values zero; the supports say the order and the sizes of the factors.

        Raises:
            AdapterError: With everything that is wrong with the settings, or that does not belong together.
        """
        if settings.keys() != set(SETTINGS):
            raise AdapterError(f"settings {listed(sorted(settings))} are not those of a low-rank adapter")
        if wrong := wrong_settings(*(settings[key] for key in SETTINGS)):
            raise AdapterError(f"a low-rank adapter cannot be built: {listed(wrong, '; ')}")
        shapes, order = {}, []
        for weight in [name.removesuffix(".A") for name in supports if name.endswith(".A")]:
            r = settings["ranks"].get(weight, 1)
            names = [f"{weight}.{factor}" for factor in ("BA" if settings["shrinkage"] is None else "BAg")]
            counts = [len(supports.get(name, ())) for name in names]
            if not all(counts) or any(count % r for count in counts) or counts[2:] not in ([], [r]):
                wrong.append(f"{weight}: {counts} entries of {listed(names)} make no matrices of rank {r}")
            shapes[weight] = (counts[0] // r, counts[1] // r)
            order += [names[1], names[0], *names[2:]]
        wrong += [f"'{name}' does not belong here" for name in supports if name not in order]
        for name, support in supports.items():
            if not torch.equal(support.cpu().to(torch.int64), torch.arange(len(support))):
                wrong.append(f"'{name}' lacks entries: factors are stored whole")
        if wrong or tuple(supports) != tuple(order):
            raise AdapterError(f"low-rank factors do not fit: {listed(wrong, '; ') or 'they are in another order'}")
        return cls(shapes, **settings)

    @property
    def weights(self) -> tuple[str, ...]:  # noqa: D102
        return tuple(self.shapes)

    def scale(self, weight: str) -> float:
        """What the product of a weight's factors is multiplied by."""
        r = self.ranks[weight]
        return self.alphas[weight] / (math.sqrt(r) if self.rank_stabilized else r)

    def factors(self, weight: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """A ``(r, in)``, B ``(out, r)`` and, where there are gates, g ``(r,)``: fp32 views of the values' data."""
        (rows, columns), r = self.shapes[weight], self.ranks[weight]
        a, b = self._data(f"{weight}.A").view(r, columns), self._data(f"{weight}.B").view(rows, r)
        return a, b, None if self.shrinkage is None else self._data(f"{weight}.g")

    def added(self, weight: str) -> tuple[None, Tensor]:  # noqa: D102
        a, b, gate = self.factors(weight)
        with torch.autocast(a.device.type, enabled=False):
            return None, ((b if gate is None else b * gate) @ a * self.scale(weight)).flatten()

    @torch.no_grad()
    def take(self, weight: str, dense: Tensor) -> None:  # noqa: D102
        (a, b, gate), scale, gradient = self.factors(weight), self.scale(weight), gradient_of(self)
        with torch.autocast(a.device.type, enabled=False):
            matrix = dense.reshape(self.shapes[weight]).to(torch.float32)
            of_b, of_a = scale * (matrix @ a.t()), scale * (b.t() @ matrix)
        if gate is not None:
            gradient[self.slices[f"{weight}.g"]] += (of_b * b).sum(0)
            of_b, of_a = of_b * gate, of_a * gate[:, None]
        gradient[self.slices[f"{weight}.A"]] += of_a.flatten()
        gradient[self.slices[f"{weight}.B"]] += of_b.flatten()

    def beside(self, module: nn.Module) -> dict[str, RemovableHandle]:
        """Hook into the plain linear layers; their weights should not require gradients, or dense ones are made.

        Raises:
            AdapterError: If there is dropout, and weights that it cannot reach.
        """
        linears = plain_linears(module)
        merged = [weight for weight in self.weights if weight not in linears]
        if self.dropout and merged:
            raise AdapterError(
                f"dropout hides inputs of plain linear layers, which these weights do not belong to: {listed(merged)}; "
                "train with dropout 0, or leave them out"
            )
        handles: dict[str, RemovableHandle] = {}
        try:
            for weight in self.weights:
                if weight in linears:
                    passing = partial(self._pass, weight)
                    handles[weight] = linears[weight].register_forward_hook(passing, with_kwargs=True)
            return handles
        except BaseException:
            unhook(handles.values())
            raise

    def mismatches(self, module: nn.Module) -> list[str]:
        """Weights that the model lacks, or that are other matrices than the factors make."""
        parameters, wrong = dict(module.named_parameters()), []
        for name, (rows, columns) in self.shapes.items():
            if name not in parameters:
                wrong.append(f"{name}: the model has no such weight")
            elif parameters[name].ndim < 2 or matrix_shape(parameters[name].shape) != (rows, columns):
                wrong.append(f"{name}: factors of {rows} x {columns} for a weight of {(*parameters[name].shape,)}")
        return wrong

    def settings(self) -> dict[str, Any]:  # noqa: D102
        found = {key: getattr(self, key) for key in SETTINGS}
        return {k: dict(v) if isinstance(v, dict) else list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    def rescale(self, alpha: float) -> None:  # noqa: D102
        for weight in self.weights:
            self.values.data[self.slices[f"{weight}.B"]] *= alpha

    @property
    def sizes(self) -> dict[str, int]:  # noqa: D102
        return dict(zip(self.names, self.counts, strict=True))

    def finished(self) -> "LowRank":
        """Without gates; see ``pruned``."""
        return self if self.shrinkage is None else self.pruned()

    def draw(self, seed: int, step: int, number: int) -> None:
        """Let the next forward drop inputs; the last one before ``settle`` counts."""
        self._drawn = (seed, step, number)

    @torch.no_grad()
    def settle(self, rate: float, progress: float) -> None:
        """Drop nothing until the next ``draw``; shrink the gates."""
        self._drawn = None
        if self.shrinkage is not None:
            threshold = rate * strength_at(self.shrinkage, progress)
            for weight in self.weights:
                gate = self.values.data[self.slices[f"{weight}.g"]]
                gate.copy_(gate.sign() * (gate.abs() - threshold).clamp(min=0))

    def pruned(self) -> "LowRank":
        """The same update without gates: closed ranks are left out, open gates are folded into B, scales are kept.

        Weights without an open gate are left out; if none has one, the first keeps a rank that adds nothing. The update
        is the same up to rounding in fp32.
        """
        kept = {}
        for weight in self.weights:
            a, b, gate = self.factors(weight)
            gate = torch.ones_like(a[:, 0]) if gate is None else gate
            kept[weight] = (a[gate != 0], b[:, gate != 0] * gate[gate != 0])
        a, b, _ = self.factors(self.weights[0])
        used = {weight: pair for weight, pair in kept.items() if len(pair[0])}
        used = used or {self.weights[0]: (a[:1], torch.zeros_like(b[:, :1]))}
        ranks = {weight: len(a) for weight, (a, _) in used.items()}
        alphas = {w: self.scale(w) * (math.sqrt(r) if self.rank_stabilized else r) for w, r in ranks.items()}
        shapes = {weight: self.shapes[weight] for weight in used}
        plain = LowRank(shapes, ranks, alphas, rank_stabilized=self.rank_stabilized, dropout=self.dropout)
        plain.values.data = torch.cat([factor.flatten() for pair in used.values() for factor in pair])
        return plain.to(self.values.device)

    def _data(self, name: str) -> Tensor:
        return self.values.data[self.slices[name]].to(torch.float32)

    def _pass(self, weight: str, _: nn.Module, args: Any, named: Mapping[str, Any], output: Tensor) -> Tensor:
        """The layer's output plus the update's, summed in fp32 where autocast does not say otherwise."""
        a, b, gate = self.factors(weight)
        if torch.is_grad_enabled():
            for factor, tensor in (("A", a), ("B", b), ("g", gate)):
                if tensor is not None:
                    self._collect(f"{weight}.{factor}", tensor)
        inputs = args[0] if args else named["input"]
        if not torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.to(torch.float32)
        inner = F.linear(self._dropped(weight, inputs), a)
        inner = inner if gate is None else inner * gate
        return (output + F.linear(inner, b) * self.scale(weight)).to(output.dtype)

    def _collect(self, name: str, leaf: Tensor) -> None:
        """Give a view of the values a gradient of its own, which goes into the flat one.

        Autograd through slices of the parameter would write a gradient of all values for every factor.
        """

        def take(leaf: Tensor) -> None:
            assert leaf.grad is not None, "the hook runs after the gradient was accumulated"
            gradient_of(self)[self.slices[name]] += leaf.grad.flatten()
            leaf.grad = None

        leaf.requires_grad_().register_post_accumulate_grad_hook(take)

    def _dropped(self, weight: str, inputs: Tensor) -> Tensor:
        if not self.dropout or self._drawn is None:
            return inputs
        key = hashlib.sha256("/".join(map(str, (*self._drawn, weight))).encode()).digest()
        stream = torch.Generator(inputs.device).manual_seed(int.from_bytes(key[:8], "little") >> 1)
        hidden = torch.rand(inputs.shape, generator=stream, device=inputs.device) < self.dropout
        return inputs.masked_fill(hidden, 0.0) / (1 - self.dropout)


def fresh(
    shapes: Mapping[str, Sequence[int]], rank: int | Mapping[str, int], alpha: float | Mapping[str, float], *,
    rank_stabilized: bool = False, dropout: float = 0.0, shrinkage: Shrinkage = None, seed: int = 0,
) -> LowRank:  # fmt: skip
    """A part that changes nothing yet: A Kaiming-uniform as in LoRA's code (within ``1 / sqrt(in)``), B zero.

    Gates are standard normal, as in SoRA's code.

    Args:
        shapes: Weight -> its shape, of two axes or more.
        rank: Of all weights, or of each.
        alpha: Of all weights, or of each.
        rank_stabilized: See ``LowRank``.
        dropout: See ``LowRank``.
        shrinkage: See ``LowRank``.
        seed: Of A and the gates.

    Raises:
        AdapterError: Listing weights that are no matrices or have no such rank, and wrong settings.
    """
    ranks = dict(rank) if isinstance(rank, Mapping) else dict.fromkeys(shapes, rank)
    alphas = dict(alpha) if isinstance(alpha, Mapping) else dict.fromkeys(shapes, alpha)
    wrong = [f"{name}: shape {(*shape,)} is no matrix" for name, shape in shapes.items() if len(shape) < 2]
    matrices = {name: matrix_shape(shape) for name, shape in shapes.items()}
    for name, sides in matrices.items():
        if isinstance(ranks.get(name), int) and ranks[name] > min(sides):
            wrong.append(f"{name}: rank {ranks[name]} is more than a matrix of {sides[0]} x {sides[1]} can have")
    if wrong:
        raise AdapterError(f"no low-rank adapter for {listed(wrong, '; ')}")
    part = LowRank(matrices, ranks, alphas, rank_stabilized=rank_stabilized, dropout=dropout, shrinkage=shrinkage)
    for weight, (_, columns) in matrices.items():
        uniform = random_scores(ranks[weight] * columns, seed, f"{weight}.A")
        part.values.data[part.slices[f"{weight}.A"]] = ((2 * uniform - 1) / math.sqrt(columns)).to(torch.float32)
        if shrinkage is not None:
            uniform = random_scores(ranks[weight], seed, f"{weight}.g").clamp(min=2.0**-54)  # 0 would be infinite
            part.values.data[part.slices[f"{weight}.g"]] = torch.special.ndtri(uniform).to(torch.float32)
    return part
