"""An exponential average of everything learned: late updates of few labels are noisy, their mean is less so."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kusabi.adapters.moves import Move


class RunningMean:
    """Averages tensors by name, corrected for the start at zero.

    Args:
        learned: Name -> tensor as it is now; only shapes and devices are taken from it.
        decay: Weight of the past per update; 0 keeps no average.
    """

    def __init__(self, learned: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._sums = {name: torch.zeros_like(tensor) for name, tensor in learned.items()} if decay else {}
        self._weight = 0.0

    def take(self, learned: Mapping[str, Tensor]) -> None:
        """Count the tensors after one update."""
        for name, sums in self._sums.items():
            sums.lerp_(learned[name], 1 - self.decay)
        self._weight = self.decay * self._weight + 1 - self.decay

    def carry(self, name: str, move: Move) -> None:
        """Follow a move of the support: an entry that is new was zero until now."""
        if name in self._sums:
            self._sums[name] = move.carried(self._sums[name])

    def give(self, learned: Mapping[str, Tensor]) -> None:
        """Write the averages into the tensors, if there are any."""
        for name, sums in self._sums.items():
            learned[name].copy_(sums / self._weight)

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        return {"weight": torch.tensor(self._weight, dtype=torch.float64), **self._sums}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint."""
        self._weight = float(tensors["weight"])
        for name, sums in self._sums.items():
            self._sums[name] = tensors[name].to(sums.device, sums.dtype, copy=True)
