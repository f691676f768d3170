"""Generated pictures: noise whose colour tells the class. What they show does not matter for time."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from kusabi.data.dataset import Dataset, Example

SIDE = 256


def examples(classes: int, each: int) -> tuple[Example, ...]:
    """``each`` pictures of every class."""
    return tuple(
        Example(f"{label}/{number}", label, None, f"{label:08x}{number:08x}".ljust(64, "0"))
        for label in range(classes)
        for number in range(each)
    )


def dataset_of(classes: int, support: Sequence[Example]) -> Dataset:
    """A data set whose pictures lie decoded in memory: decoding is no part of any measure."""
    names = tuple(f"kind {number}" for number in range(classes))
    return Dataset("generated", names, tuple(support), (), (), "generated", lambda file: drawn(file).copy())


@lru_cache(maxsize=512)
def drawn(file: str, side: int = SIDE) -> Image.Image:
    """The picture of a file named ``class/number``."""
    label, number = map(int, file.split("/"))
    random = np.random.default_rng([label, number])
    blocks = random.integers(0, 100, size=(side // 8, side // 8, 3), dtype=np.uint8)
    blocks += np.random.default_rng(label).integers(0, 150, size=3, dtype=np.uint8)
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1))
