"""Train a sparse delta and its classifier on the views of a support set: a generator, one record a step.

The caller stays in charge: it writes records, keeps checkpoints, and stops when it likes. Whatever happens, the
backbone's tensors are back in place when the generator is closed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.merged_training import dense_gradients, working_copy
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support, top_support
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.prefix import finish
from kusabi.errors import AdapterError
from kusabi.spec import TrainingSpec
from kusabi.training.optimizer import FlatAdamW
from kusabi.training.precision import autocast, loss_scale
from kusabi.training.texts import class_texts
from kusabi.training.views import BLOCK, Views


@dataclass(frozen=True)
class Record:
    """One update. ``loss`` in nats; ``support_accuracy`` over the batch, before the update."""

    step: int
    loss: float
    support_accuracy: float
    learning_rate: float


@dataclass
class FitState:
    """All that changes while fitting; ``step`` counts finished updates."""

    delta: SparseDelta
    prototypes: Prototypes
    train_head: bool
    step: int = 0
    optimizers: dict[str, FlatAdamW] = field(init=False)

    def __post_init__(self) -> None:
        self.optimizers = {"values": FlatAdamW(self.delta.values)}
        if self.train_head:
            self.optimizers |= {name: FlatAdamW(p) for name, p in self.prototypes.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        return {
            "step": torch.tensor(self.step),
            "indices": self.delta.indices,
            "values": self.delta.values.data,
            **{f"head.{name}": parameter.data for name, parameter in self.prototypes.named_parameters()},
            **{
                f"{name}.{key}": tensor
                for name, optimizer in self.optimizers.items()
                for key, tensor in optimizer.tensors().items()
            },
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint of the same fit."""
        own = self.tensors()
        for name in own.keys() - {"step"}:
            own[name].copy_(tensors[name])
        self.step = int(tensors["step"])


def choose_support(
    backbone: Backbone, views: Views, prototypes: Prototypes, prompts: Sequence[Sequence[str]], plan: Plan, rule: str,
    seed: int, precision: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Trained positions of every target of a plan, by ``random``, ``magnitude`` or ``gradient``.

    The gradient is that of the cross-entropy over the pictures (first views) with the classifier that training starts
    from.
    """
    scores: Mapping[str, Tensor] = {}
    match rule:
        case "random":
            return {t.tensor: random_support(t.size, t.entries, seed, t.tensor) for t in plan.targets}
        case "magnitude":
            weights = dict(backbone.module.named_parameters())
            scores = {t.tensor: weights[t.tensor].abs() for t in plan.targets}
        case "gradient":
            with dense_gradients(backbone.module, tuple(t.tensor for t in plan.targets)) as collected:
                pictures = int(views.pictures.max()) + 1
                for start in range(0, pictures, BLOCK):
                    rows = range(start, min(start + BLOCK, pictures))
                    with autocast(precision, str(backbone.device)):
                        logits = _logits(backbone, views, prototypes, prompts, plan, rows).float()
                    loss = F.cross_entropy(logits, views.labels[rows.start : rows.stop], reduction="sum")
                    (loss_scale(precision) * loss).backward()
            scores = {name: gradient.abs() for name, gradient in collected.items()}
            prototypes.zero_grad()
        case _:
            raise AssertionError(rule)
    return {t.tensor: top_support(scores[t.tensor], t.entries) for t in plan.targets}


def fit(
    state: FitState, backbone: Backbone, views: Views, prompts: Sequence[Sequence[str]], plan: Plan,
    spec: TrainingSpec, *, shots: int, seed: int, precision: str,
) -> Iterator[Record]:  # fmt: skip
    """Go on from ``state.step`` to ``spec.steps``; the result does not depend on where it was stopped in between.

    Args:
        state: What is trained; changed in place.
        backbone: The frozen model.
        views: The support set.
        prompts: Prompts of every class; encoded again at every step where the text tower is adapted.
        plan: The targets.
        spec: Steps, rates, batch.
        shots: Labelled pictures per class; the L2 on the values is divided by it.
        seed: Of the order of the views.
        precision: ``float32``, or the half precision that forwards are cast to.

    Raises:
        AdapterError: When gradients are not finite.
    """
    device, scale = str(backbone.device), loss_scale(precision)
    decay = spec.value_decay / shots
    with working_copy(backbone.module, state.delta) as copy:
        while state.step < spec.steps:
            shape = 0.5 * (1 + math.cos(math.pi * state.step / spec.steps))
            rows = batch_rows(len(views.labels), spec.batch_size, seed, state.step)
            labels = views.labels[torch.as_tensor(rows, device=views.labels.device)]
            with autocast(precision, device):
                logits = _logits(backbone, views, state.prototypes, prompts, plan, rows)
            loss = F.cross_entropy(logits.float(), labels)
            (scale * loss).backward()
            _unscale(state, scale, precision)
            if state.delta.values.grad is not None:
                state.delta.values.grad += 2 * decay * state.delta.values.data
            for name, optimizer in state.optimizers.items():
                optimizer.step(shape * (spec.learning_rate if name == "values" else spec.head_learning_rate))
            copy.fold()
            state.step += 1
            hits = (logits.argmax(1) == labels).float().mean()
            yield Record(state.step, loss.item(), hits.item(), shape * spec.learning_rate)


def _unscale(state: FitState, scale: float, precision: str) -> None:
    gradients = [p.grad for p in (state.delta.values, *state.prototypes.parameters()) if p.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise AdapterError(
            f"gradients of step {state.step + 1} are not finite in {precision}; use --dtype bfloat16 or float32, or a "
            "smaller learning rate"
        )
    for gradient in gradients:
        gradient /= scale


def _logits(
    backbone: Backbone, views: Views, prototypes: Prototypes, prompts: Sequence[Sequence[str]], plan: Plan,
    rows: Sequence[int],
) -> Tensor:  # fmt: skip
    """Logits of some views, differentiable in whatever the plan adapts."""
    if views.layer is None:
        images = views.features[torch.as_tensor(rows, device=views.features.device)]
    else:
        images = finish(backbone, views.batch(rows), views.layer)
    text = class_texts(backbone, prompts) if "text" in plan.first_layer else None
    return prototypes(images, text)


def batch_rows(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Rows of one batch: consecutive pieces of one shuffled round after another, a function of (seed, step) alone."""
    batch = min(batch, count)
    first, last = step * batch, (step + 1) * batch
    laps = range(first // count, (last - 1) // count + 1)
    orders = [np.random.Generator(np.random.Philox(key=[seed, lap])).permutation(count) for lap in laps]
    start = first - laps.start * count
    return np.concatenate(orders)[start : start + batch].tolist()
