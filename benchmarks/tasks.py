"""The tasks of the benchmark: where the pictures come from, and what a user would ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.coloured_shapes import coloured_shapes
from benchmarks.fashion import fashion
from benchmarks.pool import Pool
from benchmarks.textile import textile


@dataclass(frozen=True)
class Task:
    """``pictures(cache)`` gives those to learn from and those that judge; ``input_size`` in pixels a side."""

    package: str
    input_size: int
    pictures: Callable[[Path], tuple[Pool, Pool]]


TASKS = {
    "textile": Task("conformal-clip-data 0.1.4 (PyPI, MIT)", 224, textile),
    "easy_vqa": Task("easy-vqa 1.0 (PyPI, MIT)", 84, coloured_shapes),
    "fashion": Task("dataset-fashion-mnist (Debian, MIT)", 84, fashion),
}
