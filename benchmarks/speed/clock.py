"""Seconds, taken when the device has really finished, of sides that take turns."""

import time
from collections.abc import Callable, Mapping

import torch

from benchmarks.speed.record import Spread, spread


def now(device: str | torch.device) -> float:
    """Seconds on a clock that only rises, when the device has nothing left to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Callable[[], object], device: str | torch.device) -> float:
    """How long something takes once."""
    began = now(device)
    work()
    return now(device) - began


def alternated(
    sides: Mapping[str, Callable[[], object]], device: str | torch.device, *, repeats: int, warm: int = 1
) -> dict[str, Spread]:
    """Every side in turn, round after round: what slows the machine for a while slows all of them.

    Args:
        sides: What is measured, by name.
        device: Where it runs.
        repeats: Rounds that count.
        warm: Rounds before them that do not.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm + repeats):
        for name, work in sides.items():
            once = seconds(work, device)
            if number >= warm:
                taken[name].append(once)
    return {name: spread(values) for name, values in taken.items()}
