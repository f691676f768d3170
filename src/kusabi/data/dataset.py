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
        """sha256 over the classes and every example's side, file, label, pixels and, where it has one, group."""
        return self._digest(grouped=True)

    @cached_property
    def ungrouped_digest(self) -> str:
        """As ``digest``, of the pictures and labels alone: the same whether or not groups were asked for."""
        return self._digest(grouped=False)

    def _digest(self, *, grouped: bool) -> str:
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for side, examples in (("train", self.train), ("test", self.test)):
            for one in examples:
                group = [one.group] if grouped and one.group is not None else []
                digest.update(json.dumps([side, one.file, one.label, one.digest, *group]).encode())
        return digest.hexdigest()
