"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kusabi.errors import FileError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses meanwhile is told by the name of a file.

    Raises:
        FileError: Instead of the system's own error.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written ({error.strerror or error}); make room or get the right to write, "
            "or choose another place"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, flush to the disk, rename: a reader sees the old file or the whole new one.

    Raises:
        FileError: If the disk refuses; nothing is left of the attempt.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def make_folder(folder: Path) -> None:
    """A folder, with all above it, unless it is there.

    Raises:
        FileError: If it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_place(folder: Path) -> None:
    """Whether files can be written in a folder, or it can be made; nothing is.

    Raises:
        FileError: If not, before hours of work are lost to it.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FileError(f"{folder}: {there} is a file; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileError(f"{folder}: no right to write in {there}; choose another place")
