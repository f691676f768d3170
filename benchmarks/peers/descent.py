"""Gradient descent as all peers do it: AdamW, cosine to zero, the same batches for everyone."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.peers.material import Material
from benchmarks.peers.settings import Setting
from kusabi.errors import AdapterError
from kusabi.training.fit import batch_rows


@dataclass(frozen=True)
class Group:
    """Parameters that share a setting."""

    parameters: Sequence[nn.Parameter]
    setting: Setting


def descend(
    name: str, material: Material, groups: Sequence[Group], loss_of: Callable[[Tensor], Tensor], *,
    steps: int | None = None, before_update: Callable[[], None] | None = None,
    after_update: Callable[[], None] | None = None,
) -> list[float]:  # fmt: skip
    """Update parameters in place; the loss before each update comes back.

    Args:
        name: The method, for messages.
        material: Steps, batch size and seed.
        groups: What is trained.
        loss_of: Loss in nats of some views, given by their rows.
        steps: Updates, if not as many as the material says.
        before_update: Called between backward and update.
        after_update: Called after it.

    Raises:
        AdapterError: When a loss is not finite.
    """
    steps = material.steps if steps is None else steps
    optimizer = torch.optim.AdamW(
        [
            {
                "params": list(g.parameters),
                "lr": g.setting.rate,
                "weight_decay": g.setting.decay,
                "eps": g.setting.epsilon,
            }
            for g in groups
        ]
    )
    losses: list[float] = []
    for step in range(steps):
        shape = 0.5 * (1 + math.cos(math.pi * step / steps))
        for own, group in zip(optimizer.param_groups, groups, strict=True):
            own["lr"] = shape * group.setting.rate
        rows = batch_rows(len(material.views.labels), material.batch_size, material.seed, step)
        loss = loss_of(torch.tensor(rows, device=material.views.labels.device))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise AdapterError(f"{name}: the loss of step {step + 1} is not finite; lower its rate in settings.py")
        loss.backward()
        if before_update:
            before_update()
        optimizer.step()
        optimizer.zero_grad()
        if after_update:
            after_update()
    return losses


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread meanwhile: products as small as those on features only wait for each other on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(material: Material) -> Iterator[None]:
    """Random draws of torch come from the material's seed meanwhile, and the global state is put back."""
    devices = [material.backbone.device] if material.backbone.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(material.seed)
        yield
