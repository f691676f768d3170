"""Which picture sizes a vision tower takes."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

from kusabi.backbones.families import Family, Resizing
from kusabi.errors import BackboneError

SMALLEST_CONVOLVED = 32  # five halvings must leave one pixel


@dataclass(frozen=True)
class InputSizes:
    """Sizes in pixels a side.

    ``own`` is what the model was trained at (by its config), ``step`` the patch size (1 for convolutions).
    """

    own: int
    step: int
    resizing: Resizing

    def check(self, size: int, where: str) -> None:
        """Refuse a size that the tower cannot take.

        Raises:
            BackboneError: Naming the nearest sizes that it can.
        """
        if self.resizing == "any":
            if size < SMALLEST_CONVOLVED:
                raise BackboneError(f"{where}: input size {size} is too small; at least {SMALLEST_CONVOLVED}")
        elif size != self.own and (size % self.step or size < self.step):
            below = size // self.step * self.step
            nearest = " or ".join(str(one) for one in (below, below + self.step) if one)
            raise BackboneError(
                f"{where}: input size {size} is not a multiple of the patch size {self.step}; choose {nearest} "
                f"(the model's own size is {self.own})"
            )


def input_sizes(config: Any, family: Family) -> InputSizes:
    """The sizes that a transformers config of a two-tower model declares."""
    vision = config.vision_config
    if family.resizing == "any":
        return InputSizes(_side(vision.image_size), 1, family.resizing)
    step = _side(vision.patch_size)
    own = isqrt(vision.num_patches) * step if family.resizing == "patches" else _side(vision.image_size)
    return InputSizes(own, step, family.resizing)


def _side(value: Any) -> int:
    return int(value[0]) if isinstance(value, (list, tuple)) else int(value)
