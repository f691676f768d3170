"""AdamW over one flat parameter, each entry with its own age."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class FlatAdamW:
    """Decoupled weight decay (Loshchilov and Hutter, 2019) with bias correction by the age of every entry.

    An entry that joins late starts its own averages, as in SpIEL (arXiv 2401.16405): with a common step count its first
    update would be more than three times the learning rate. Entries may come and go between two steps: whoever changes
    the parameter's entries puts ``mean``, ``square`` and ``age`` of the same shape in place.

    Args:
        parameter: Any shape; its gradient is read from ``.grad`` and freed by ``step``.
        decay: Weight decay per unit of learning rate.

    Attributes:
        mean: First moment, not yet corrected.
        square: Second moment, not yet corrected.
        age: Updates that went into both, int32.
        betas: Decay of the two moments per update.
    """

    betas = BETAS

    def __init__(self, parameter: nn.Parameter, decay: float = 0.0) -> None:
        self.parameter = parameter
        self.decay = decay
        self.mean = torch.zeros_like(parameter.data)
        self.square = torch.zeros_like(parameter.data)
        self.age = torch.zeros_like(parameter.data, dtype=torch.int32)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with the gradient at hand; without a gradient nothing happens."""
        gradient = self.parameter.grad
        if gradient is None:
            return
        self.age += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        age = self.age.to(torch.float32)
        mean = self.mean / (1 - BETAS[0] ** age)
        square = self.square / (1 - BETAS[1] ** age)
        self.parameter.data.mul_(1 - rate * self.decay)
        self.parameter.data.sub_(rate * mean / (square.sqrt() + EPSILON))
        self.parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        return {"mean": self.mean, "square": self.square, "age": self.age}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of a checkpoint, of any number of entries: the parameter is to have the same."""
        for name, own in self.tensors().items():
            setattr(self, name, tensors[name].to(own.device, own.dtype, copy=True))
