"""The flagship: K trainable entries added to frozen weights."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from kusabi.adapters.part import WeightDelta, gradient_of
from kusabi.errors import AdapterError, listed


class SparseDelta(WeightDelta):
    """Adds ``values`` at ``indices`` of named weights; zero at birth."""

    kind = "sparse_delta"

    @property
    def weights(self) -> tuple[str, ...]:  # noqa: D102
        return self.names

    def added(self, weight: str) -> tuple[Tensor | None, Tensor]:  # noqa: D102
        part = self.slices[weight]
        return self.indices[part], self.values.data[part]

    def take(self, weight: str, dense: Tensor) -> None:  # noqa: D102
        part = self.slices[weight]
        gradient_of(self)[part] += dense.reshape(-1)[self.indices[part]].to(torch.float32)

    def mismatches(self, module: nn.Module) -> list[str]:
        """Targets that the model lacks, or that have fewer entries than an index reaches."""
        parameters, wrong = dict(module.named_parameters()), []
        counts = torch.tensor(self.counts)
        ends = counts.cumsum(0)[counts > 0] - 1
        highest = iter(
            self.indices[ends.to(self.indices.device)].tolist()
        )  # positions rise, so the last is the highest
        for name, count in zip(self.names, counts.tolist(), strict=True):
            last = next(highest) if count else -1
            if name not in parameters:
                wrong.append(f"{name}: the model has no such weight")
            elif last >= parameters[name].numel():
                wrong.append(f"{name}: index {last} is outside its {parameters[name].numel()} entries")
        return wrong

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {}

    @classmethod
    def build(cls, settings: Mapping[str, Any], supports: Mapping[str, Tensor]) -> Self:
        """The part of a card, its values zero.

        Raises:
            AdapterError: If there are settings: whatever they mean, it would be lost.
        """
        if settings:
            raise AdapterError(f"a sparse delta has no settings such as {listed(sorted(settings))}; update kusabi")
        return cls(supports)

    def rescale(self, alpha: float) -> None:  # noqa: D102
        self.values.data.mul_(alpha)
