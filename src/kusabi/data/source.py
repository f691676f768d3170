"""Where labelled pictures come from: one door for folders, saved data sets and the Hub."""

import re
from pathlib import Path
from typing import Any

from kusabi.data.dataset import Dataset
from kusabi.data.folder import read_folder
from kusabi.data.listing import Progress
from kusabi.data.saved import is_saved, read_hub, read_saved
from kusabi.errors import DataError, told

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def read_dataset(
    source: str | Path,
    *,
    label_column: str = "label",
    group_column: str | None = None,
    skip_unreadable: bool = False,
    least_classes: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    """The data set at a path, or, where there is no such path, on the Hub.

    Args:
        source: A folder of pictures (conventions: ``kusabi.data.folder``), a folder written by
            ``datasets.save_to_disk``, or a Hub id ``owner/name``.
        label_column: Column of the metadata file or table that holds the class.
        group_column: Column (lot, patient, camera) that is never split across the two sides.
        skip_unreadable: Leave unreadable pictures out, with a note, instead of refusing.
        least_classes: Fewer than so many to learn from are refused; 1 suits new pictures for an adapter, which knows
            its classes.
        progress: Told (done, total) in pictures.

    Raises:
        DataError: If nothing is there, or what is there cannot be used.
    """
    if not str(source).strip():
        raise DataError("the name of the folder is empty; give the folder that holds a folder for each class")
    options: dict[str, Any] = {
        "label_column": label_column, "group_column": group_column, "skip_unreadable": skip_unreadable,
        "least_classes": least_classes, "progress": progress,
    }  # fmt: skip
    folder = Path(source)
    try:
        there, saved = folder.exists(), is_saved(folder)
    except OSError as error:  # a folder above that may not be entered, a name that is too long
        raise DataError(told(error)) from None
    if not there and _HUB_ID.fullmatch(str(source)):
        return read_hub(str(source), **options)
    return read_saved(folder, **options) if saved else read_folder(folder, **options)
