"""A folder that is there whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kusabi.errors import AdapterError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to fill; flushed to the disk and renamed at the end, gone if anything failed.

    A link is followed. A mount point is refused: nothing can be renamed to it.

    Raises:
        AdapterError: If something is in the way, or the disk refuses.
    """
    try:
        place = folder.resolve()
        if place.is_mount():
            raise AdapterError(f"{folder}: a disk is mounted there; choose a folder inside it")
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise AdapterError(f"{folder}: something is there already; choose another folder")
        # Not of the process id: in a container it comes back, and with it what a killed process left behind.
        aside = place.parent / f".{place.name}.{secrets.token_hex(4)}"
        aside.mkdir(parents=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        reason = getattr(error, "strerror", None) or error
        raise AdapterError(f"{folder}: cannot be written ({reason}); choose another folder") from error
    try:
        yield aside
        for path in aside.iterdir():
            _flush(path)
        if place.exists():  # some systems rename onto nothing, not even onto an empty folder
            place.rmdir()
        aside.rename(place)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError):
            raise AdapterError(f"{folder}: not written ({error})") from error
        raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
