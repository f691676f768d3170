"""Small pictures for the page: those that the adapter fixed and those that it broke."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.data.dataset import Dataset

SIDE, MOST = 144, 24


def thumbnails(dataset: Dataset, flips: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """File -> JPEG as data URI, for ``MOST`` fixed and as many broken pictures, spread over the classes."""
    wanted = {file for side in flips.values() for file in _spread(side)}
    examples = [example for example in (*dataset.train, *dataset.test) if example.file in wanted]
    small = {}
    for example in examples:
        image = dataset.open(example)
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=82)
        small[example.file] = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
    return small


def _spread(side: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first of every class, then the second, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for flip in side:
        turns.append((seen[flip["label"]], flip["file"]))
        seen[flip["label"]] += 1
    return [file for _, file in sorted(turns, key=lambda turn: turn[0])[:MOST]]
