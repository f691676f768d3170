"""Train an adapter and its classifier on the views of a support set: a generator, one record a step.

The caller stays in charge: it writes records, keeps checkpoints, and stops when it likes. Whatever happens, the
backbone's tensors are back in place when the generator is closed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from kusabi.adapters.entry_training import EntryCopy, entry_copy, plain_layers
from kusabi.adapters.merged_training import WorkingCopy, working_copy
from kusabi.adapters.moves import STILL, Moves
from kusabi.adapters.moving_support import MovingSupport
from kusabi.adapters.part import AdapterPart, gradient_of
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.errors import AdapterError
from kusabi.spec import SafetySpec, TrainingSpec
from kusabi.training.agreement import agreement, symmetric_kl
from kusabi.training.cross_fit import CrossFit
from kusabi.training.forward import logits_of
from kusabi.training.optimizer import FlatAdamW
from kusabi.training.precision import cast, loss_scale
from kusabi.training.running_mean import RunningMean
from kusabi.training.views import BLOCK, Views

RATES, FULL = {"sparse_delta": 2e-3, "low_rank": 3e-3, "bottleneck": 3e-3}, 100  # from so many updates on
MANY = 50
"""Pictures from which on the values of a lone sparse delta take larger steps, twice as large from twice as many on."""


@dataclass(frozen=True)
class Record:
    """One update. ``loss`` in nats; ``support_accuracy`` over the batch, before the update."""

    step: int
    loss: float
    support_accuracy: float
    learning_rate: float


@dataclass
class FitState:
    """All that changes while fitting; ``step`` counts finished updates.

    Args:
        parts: What is trained. The support of the first one moves, if it is a sparse delta.
        prototypes: The classifier.
        train_head: Whether it learns too.
        moves: How the support moves.
        steps: Updates in all, where moves end.
        seed: Of the moves.
        averaged: Decay of the average of values and classifier that takes their place in the end; 0 for none.
        closed: Weight -> positions that moves never enter.
    """

    parts: tuple[AdapterPart, ...]
    prototypes: Prototypes
    train_head: bool
    moves: Moves = STILL
    steps: int = 0
    seed: int = 0
    averaged: float = 0.0
    closed: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    stopped: bool = False
    optimizers: dict[str, FlatAdamW] = field(init=False)
    support: MovingSupport | None = field(init=False, default=None)
    average: RunningMean = field(init=False)
    start: dict[str, Tensor] = field(init=False)
    recent: float = field(init=False, default=math.inf)

    def __post_init__(self) -> None:
        self.start = {name: p.detach().clone() for name, p in self.prototypes.named_parameters()}
        self.optimizers = {f"part.{i}": FlatAdamW(part.values) for i, part in enumerate(self.parts)}
        first = self.parts[0]
        if isinstance(first, SparseDelta):
            moments = self.optimizers["part.0"]
            self.support = MovingSupport(
                first, moments, self.moves, steps=self.steps, seed=self.seed, closed=self.closed
            )
        if self.train_head:
            self.optimizers |= {f"head.{name}": FlatAdamW(p) for name, p in self.prototypes.named_parameters()}
        self.average = RunningMean(self.learned(), self.averaged)

    def learned(self) -> dict[str, Tensor]:
        """What an optimizer changes, by name."""
        values = {f"part.{i}": part.values.data for i, part in enumerate(self.parts)}
        head = self.prototypes.named_parameters() if self.train_head else ()
        return values | {f"head.{name}": parameter.data for name, parameter in head}

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        groups: dict[str, Mapping[str, Tensor]] = {
            f"optimizer.{name}": optimizer.tensors() for name, optimizer in self.optimizers.items()
        }
        if self.support is not None:
            shared = {"counts", "indices", "values"}  # with the part itself: a file holds them once
            groups["support"] = {key: t for key, t in self.support.tensors().items() if key not in shared}
        for i, part in enumerate(self.parts):
            groups[f"entries.{i}"] = {"counts": torch.tensor(part.counts), "indices": part.indices}
        groups["average"] = self.average.tensors()
        state = {
            "step": torch.tensor(self.step),
            "stopped": torch.tensor(self.stopped),
            "recent": torch.tensor(self.recent, dtype=torch.float64),
            **self.learned(),
        }
        for group, tensors in groups.items():
            state |= {f"{group}.{name}": tensor for name, tensor in tensors.items()}
        return state

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint of the same fit."""

        def group(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}

        for i, part in enumerate(self.parts):
            entries = group(f"entries.{i}")
            if i == 0 and self.support is not None:
                self.support.restore({**group("support"), **entries, "values": tensors["part.0"]})
            else:
                part.place(entries["counts"].tolist(), entries["indices"], tensors[f"part.{i}"])
        for name, tensor in self.learned().items():
            tensor.copy_(tensors[name])
        for name, optimizer in self.optimizers.items():
            optimizer.restore(group(f"optimizer.{name}"))
        self.average.restore(group("average"))
        self.step, self.stopped = int(tensors["step"]), bool(tensors["stopped"])
        self.recent = float(tensors["recent"])

    def advance(self, copy: WorkingCopy | EntryCopy, rates: Mapping[str, float]) -> None:
        """One update with the gradients at hand, moves and averages included."""
        if self.support is not None:
            self.support.narrow()
        for name, optimizer in self.optimizers.items():
            optimizer.step(rates["head" if name.startswith("head.") else name])
        self.step += 1
        for i, part in enumerate(self.parts):
            part.settle(rates[f"part.{i}"], self.step / max(self.step, self.steps))
        move = None
        if self.support is not None:
            move = self.support.advance(copy)
        else:
            copy.fold()
        if move is not None:
            self.average.carry("part.0", move)
        self.average.take(self.learned())


def fit(
    state: FitState, backbone: Backbone, views: Views, prompts: Sequence[Sequence[str]], plan: Plan,
    spec: TrainingSpec, safety: SafetySpec, *, shots: int, seed: int, precision: str, against: CrossFit | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Go on from ``state.step`` to ``spec.steps``; the result does not depend on where it was stopped in between.

    Args:
        state: What is trained; changed in place.
        backbone: The frozen model.
        views: The support set.
        prompts: Prompts of every class; encoded again at every step where the text tower is adapted.
        plan: The targets.
        spec: Steps, rates, batch.
        safety: What keeps few labels from doing harm.
        shots: Labelled pictures per class; the L2 on the values is divided by it.
        seed: Of the order of the views and of random choices.
        precision: ``float32``, or the half precision that forwards are cast to.
        against: Classifiers that the values learn against; the state's own when absent.

    Raises:
        AdapterError: When gradients are not finite.
    """
    scale = loss_scale(precision)
    decay = spec.value_decay / shots
    frozen = None
    if safety.agreement:
        frozen = _starting_logits(state, views, against)
    pictures = int(views.pictures.max()) + 1 if len(state.parts) == 1 else 0
    peaks = {f"part.{i}": peak_rate(part.kind, spec, pictures) for i, part in enumerate(state.parts)}
    peaks["head"] = spec.head_learning_rate
    lap = math.ceil(len(views.labels) / spec.batch_size)
    forwards = max(part.forwards for part in state.parts)
    with _copy(state, backbone, precision) as copy:
        while state.step < spec.steps and not state.stopped:
            shape = _shape(state.step, spec)
            rows = batch_rows(len(views.labels), spec.batch_size, seed, state.step)
            at = torch.as_tensor(rows, device=views.labels.device)
            labels = views.labels[at]
            outputs = []
            for number in range(forwards):
                for part in state.parts:
                    part.draw(seed, state.step, number)
                with cast(backbone, precision):
                    outputs.append(logits_of(backbone, views, against or state.prototypes, prompts, plan, rows))
            logits = outputs[0].logits.float()
            loss = total = F.cross_entropy(logits, labels)
            if frozen is not None:
                total = total + safety.agreement * agreement(outputs[0], views.features[at], frozen[at])
            if forwards > 1:
                total = total + symmetric_kl(logits, outputs[1].logits.float())
            (scale * total).backward()
            _unscale(state, scale, precision)
            for part in state.parts:
                gradient_of(part).add_(part.values.data, alpha=2 * decay)
            state.advance(copy, {name: shape * peak for name, peak in peaks.items()})
            state.recent = loss.item() if state.step == 1 else state.recent + (loss.item() - state.recent) / lap
            state.stopped = state.step >= lap and state.recent < safety.stop_loss
            hits = (logits.argmax(1) == labels).float().mean()
            yield Record(state.step, loss.item(), hits.item(), shape * peaks["part.0"])
        if state.step:
            state.average.give(state.learned())


def _copy(state: FitState, backbone: Backbone, precision: str) -> AbstractContextManager[WorkingCopy | EntryCopy]:
    """The cheapest way to train these parts."""
    first, support, dtype = state.parts[0], state.support, getattr(torch, precision)
    layers = None if support is not None and support.moves.by_gradient else plain_layers(backbone.module, state.parts)
    if layers and isinstance(first, SparseDelta):
        return entry_copy(backbone.module, first, layers, dtype)
    return working_copy(backbone.module, *state.parts, watch=support and support.watch)


def _starting_logits(state: FitState, views: Views, against: CrossFit | None) -> Tensor:
    if against is not None:
        starts = range(0, len(views.labels), BLOCK)  # each row has anchors of its own: not those of all at once
        blocks = [views.features[start : start + BLOCK] for start in starts]
        found = zip(starts, blocks, strict=True)
        return torch.cat([against(rows, None, range(start, start + len(rows))) for start, rows in found])
    return functional_call(state.prototypes, state.start, (views.features,)).detach()


def peak_rate(kind: str, spec: TrainingSpec, pictures: int) -> float:
    """Peak step size of the values of a part.

    A short training has no time to come back from large steps, and few pictures need none
    (``benchmarks/rates.py``).

    Args:
        kind: Of the part.
        spec: Updates, and the rate where it is given.
        pictures: Labelled pictures, 0 where other parts learn beside this one.
    """
    if spec.learning_rate is not None:
        return spec.learning_rate
    more = min(max(pictures / MANY, 1.0), 2.0) if kind == "sparse_delta" else 1.0
    return RATES[kind] * min(1.0, spec.steps / FULL) * more


def _shape(step: int, spec: TrainingSpec) -> float:
    """Of the peak: a rise, for Adam's first steps move every entry alike; and half a cosine over the whole."""
    rise = min(1.0, (step + 1) / max(spec.warmup_ratio * spec.steps, 1.0))
    return rise * 0.5 * (1 + math.cos(math.pi * step / spec.steps))


def _unscale(state: FitState, scale: float, precision: str) -> None:
    trained = (*(part.values for part in state.parts), *state.prototypes.parameters())
    gradients = [p.grad for p in trained if p.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise AdapterError(
            f"gradients of step {state.step + 1} are not finite in {precision}; use --dtype bfloat16 or float32, or a "
            "smaller learning rate"
        )
    for gradient in gradients:
        gradient /= scale


def batch_rows(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Rows of one batch: consecutive pieces of one shuffled round after another, a function of (seed, step) alone."""
    batch = min(batch, count)
    first, last = step * batch, (step + 1) * batch
    laps = range(first // count, (last - 1) // count + 1)
    orders = [np.random.Generator(np.random.Philox(key=[seed, lap])).permutation(count) for lap in laps]
    start = first - laps.start * count
    return np.concatenate(orders)[start : start + batch].tolist()
