"""What is measured, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy.classic import CLASSIC
from benchmarks.accuracy.harder import Variant
from benchmarks.accuracy.summary import headline
from benchmarks.accuracy.tasks import MANY_CLASSES, OWN

CACHE = Path(".cache/benchmarks")
RESULTS = Path("benchmarks/results/accuracy")


@dataclass(frozen=True)
class Stage:
    """What is measured, at how many updates, on how many query pictures, of which backbone, and where it goes."""

    tasks: Sequence[str]
    shots: Sequence[int]
    seeds: Sequence[int]
    steps: int = 100
    query: int = 500
    out: Path = RESULTS
    variant: Variant = "plain"
    backbone: str = "mini"

    def of(self, backbone: str | None) -> "Stage":
        """The same of another backbone, whose results go to a folder of their own."""
        if backbone is None:
            return self
        name = backbone.rstrip("/").rpartition("/")[2]
        return replace(self, backbone=backbone, out=self.out.with_name(f"{self.out.name}-{name}"))


STAGES = {
    "a": Stage(("fashion", "letters", "digits", "easy_vqa", "textile"), (1, 4, 16), (0, 1, 2)),
    "b": Stage(OWN, (1, 2, 4, 8, 16), (0, 1, 2, 3, 4)),
    "corrupted": Stage(
        headline(OWN), (4, 16), (0, 1, 2), out=RESULTS.with_name("accuracy_corrupted"), variant="corrupted"
    ),
    "new": Stage(
        headline(MANY_CLASSES), (4, 16), (0, 1, 2), out=RESULTS.with_name("accuracy_new"), variant="base_to_new"
    ),
    "published": Stage(
        ("digits", "easy_vqa"), (16,), (0,), out=RESULTS.with_name("accuracy_published"), variant="published"
    ),
    "classic": Stage(
        tuple(CLASSIC), (1, 2, 4, 8, 16), (0, 1, 2), query=1000, out=RESULTS.with_name("accuracy_classic")
    ),
    "quick": Stage(("digits",), (4,), (0,), steps=30, query=200, out=CACHE / "accuracy-quick"),
}
