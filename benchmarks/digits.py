"""Handwritten digits, grey, 8 x 8 pixels, from scikit-learn; the first half is learned from, the second judges."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pool import Pool

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from and pictures that judge, of other writers: the package orders them by writer."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, labels = found.images, found.target  # type: ignore[attr-defined]  # a bunch of arrays
    pictures = [Image.fromarray(np.round(255 / 16 * (16 - one)).astype(np.uint8)) for one in pixels]
    half = len(pictures) // 2

    def of(rows: range) -> Pool:
        return {
            f"handwritten digit {name}": [pictures[row] for row in rows if labels[row] == label]
            for label, name in enumerate(CLASSES)
        }

    return of(range(half)), of(range(half, len(pictures)))
