"""The tasks that methods are compared on. Defaults were chosen on two of them: these stay out of headline means."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.accuracy.classic import CLASSIC
from benchmarks.coloured_shapes import COLOURS, SHAPES, coloured_shapes
from benchmarks.development import DEVELOPMENT
from benchmarks.digits import digits
from benchmarks.pool import Pool
from benchmarks.tasks import Task
from benchmarks.textile import textile

EASY_VQA, TEXTILE = "easy-vqa 1.0 (PyPI, MIT)", "conformal-clip-data 0.1.4 (PyPI, MIT)"
ONE_POOL = (("textile", "textile_global"), ("easy_vqa", "easy_vqa_shape", "easy_vqa_colour"))
"""Tasks that share pictures."""

FABRIC_SIZE = 112  # below about 100 px local defects vanish


def _two_defects(cache: Path) -> tuple[Pool, Pool]:
    """Nominal against global defects."""
    return tuple({name: side[name] for name in ("nominal", "global defect")} for side in textile(cache))  # type: ignore[return-value]


def _by(word: int, names: tuple[str, ...], cache: Path) -> tuple[Pool, Pool]:
    """Coloured shapes by one word of their class alone; pictures of the joined classes take turns."""

    def joined(pool: Pool, name: str) -> list:
        parts = [pictures for of, pictures in pool.items() if of.split()[word] == name]
        return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]

    return tuple({name: joined(side, name) for name in names} for side in coloured_shapes(cache))  # type: ignore[return-value]


def _icons(name: str) -> Callable[[Path], tuple[Pool, Pool]]:
    """A task of icons; what draws them is imported when it is drawn."""

    def pictures(cache: Path) -> tuple[Pool, Pool]:
        from benchmarks import icons

        return getattr(icons, name)(cache)

    return pictures


MANY_CLASSES = [
    "fashion",
    "letters",
    "easy_vqa",
    "easy_vqa_colour",
    "digits",
    "openmoji",
    "hugeicons",
    "fluent",
]  # >= 8
TASKS: dict[str, Task] = {
    **DEVELOPMENT,
    "textile": Task(TEXTILE, FABRIC_SIZE, textile),
    "textile_global": Task(TEXTILE, FABRIC_SIZE, _two_defects),
    "easy_vqa": Task(EASY_VQA, 84, coloured_shapes),
    "easy_vqa_shape": Task(EASY_VQA, 84, lambda cache: _by(1, SHAPES, cache)),
    "easy_vqa_colour": Task(EASY_VQA, 84, lambda cache: _by(0, COLOURS, cache)),
    "digits": Task("scikit-learn load_digits (BSD)", 84, digits),
    "openmoji": Task("OpenMoji (CC BY-SA 4.0) in @iconify/json 2.2.535 (npm)", 84, _icons("openmoji_groups")),
    "hugeicons": Task("Hugeicons (MIT) in @iconify/json 2.2.535 (npm)", 84, _icons("hugeicons_families")),
    "fluent": Task("Fluent UI System Icons (MIT) in @iconify/json 2.2.535 (npm)", 84, _icons("fluent_families")),
}

OWN = tuple(TASKS)  # what is to be had without asking anyone
TASKS |= CLASSIC
