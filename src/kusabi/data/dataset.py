"""Labelled pictures, wherever they come from."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image

from kusabi.errors import DataError


@dataclass(frozen=True)
class Example:
    """One labelled picture.

    ``file`` is relative to the root of its data set, with forward slashes (``train/12``: row 12 of a saved split);
    ``label`` is an index into the classes; pictures of one ``group`` (lot, patient, camera) are never split across the
    two sides; ``digest`` is that of the decoded pixels.
    """

    file: str
    label: int
    group: str | None
    digest: str


@dataclass(frozen=True)
class Dataset:
    """Classes in the order of their names, and the examples of each side in the order of their files.

    ``test`` is empty where the source has no test split. ``notes`` are what the user should know about the reading.
    ``place`` is the path or Hub id that messages name; ``read`` gives the picture of a file, or raises a DataError
    with the bare reason.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...]
    place: str
    read: Callable[[str], Image.Image] = field(repr=False, compare=False)

    def open(self, example: Example) -> Image.Image:
        """The picture of an example, RGB, freshly decoded.

        Raises:
            DataError: If it can no longer be read.
        """
        try:
            return self.read(example.file)
        except DataError as error:
            raise DataError(f"{self.place}/{example.file}: {error}; it was readable before: restore it") from None

    @cached_property
    def digest(self) -> str:
        """sha256 over the classes and every example's side, file, label and pixels."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for side, examples in (("train", self.train), ("test", self.test)):
            for example in examples:
                digest.update(json.dumps([side, example.file, example.label, example.digest]).encode())
        return digest.hexdigest()
