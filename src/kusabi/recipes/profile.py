"""Where the time and memory of a run went, stage by stage: a watch that reads the clock."""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch

from kusabi.recipes.environment import peak_memory
from kusabi.recipes.watch import Watch

START_UP = "start-up"
_FOLD = re.compile(r"^fold \d+: ")


@final
class Profile:
    """A watch that passes on what it is told, and counts the time since the event before under this event's stage.

    A stage of a fold counts under the stage. On a GPU it waits for the work that was sent there, so that each stage is
    charged its own: that costs a little, and is why nobody gets it unasked.
    """

    def __init__(
        self, watch: Watch, device: str, *, since_start: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Begin to count.

        Args:
            watch: Told everything.
            device: Where the model runs; it need not be there before the first event.
            since_start: Count the life of the process so far as start-up, where the system tells it.
            clock: Seconds; never runs backwards.
        """
        self._watch, self._device, self._clock = watch, device, clock
        self._on_gpu = device.partition(":")[0] == "cuda"
        self._stages: dict[str, tuple[float, int]] = {}
        if since_start and (age := process_age()) is not None:
            self._stages[START_UP] = (age, 0 if self._on_gpu else peak_memory(device))
        self._before = clock()

    def __call__(self, stage: str, done: int, total: int, **facts: Any) -> None:
        """As ``Watch``: an event ends a piece of its stage."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        now, name = self._clock(), _FOLD.sub("", stage)
        spent, _ = self._stages.get(name, (0.0, 0))
        self._stages[name] = (spent + now - self._before, peak_memory(self._device))
        self._before = now
        self._watch(stage, done, total, **facts)

    def stages(self) -> list[dict[str, Any]]:
        """In the order in which they first ended: ``stage``, ``seconds``, and ``peak_memory_bytes``.

        The last is the highest of the whole run until the stage ended for the last time, as ``peak_memory`` counts.
        """
        return [
            {"stage": name, "seconds": seconds, "peak_memory_bytes": peak}
            for name, (seconds, peak) in self._stages.items()
        ]


def process_age() -> float | None:
    """Seconds since this process began; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        # The second field is a name in brackets that may hold anything; what follows it begins with the third.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        began = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 0.0)
