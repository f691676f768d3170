"""Under what conditions everything is measured: device, how often, how much of it. The same for both sides."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from benchmarks.speed.models import folder_of
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.dual_encoder import load_backbone

SHOTS, VIEWS = 16, 4
ROUNDS = 20  # so often every labelled picture is learned from: 200 updates at 10 classes


@dataclass(frozen=True)
class Conditions:
    """``model`` is a size of ``models``; ``quick`` measures fewer pictures fewer times."""

    model: str = "vit-b-16"
    device: str = "cpu"
    quick: bool = False
    cache: Path = Path(".cache/benchmarks/speed")
    batch: int = 16
    precision: Literal["auto", "bfloat16", "float32"] = "float32"  # of training, where a measure does not say otherwise
    input_size: int | None = None

    @property
    def repeats(self) -> int:
        """Of a training step, and whatever takes as long."""
        return 3 if self.quick else 5

    @property
    def pictures(self) -> int:
        """Pictures that are really run through the frozen layers; the rest of them is as many times their cost."""
        return 32 if self.quick else 48

    @cached_property
    def folder(self) -> Path:
        """The model folder, made when it is not there yet."""
        return folder_of(self.model, self.cache)

    def load(self) -> Backbone:
        """The model, as everybody loads one."""
        return load_backbone(self.folder, device=self.device, input_size=self.input_size)

    def steps(self, classes: int) -> int:
        """Updates of a whole adaptation."""
        return ROUNDS * classes * SHOTS // self.batch


def upper_quarter(layers: int) -> int:
    """How many of so many layers the adaptation measures adapt: 3 of 12."""
    return max(1, layers // 4)
