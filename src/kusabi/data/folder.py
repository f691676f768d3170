"""A folder of pictures, in Hugging Face's imagefolder conventions.

- ``<class>/...``: every sub-folder is a class, with all that lies below it.
- ``train/``, ``validation/``, ``test/`` (also training; valid, val, dev; testing, eval, evaluation), each with class
  folders. Without a test split the validation split judges; with both, validation pictures join the training side.
- ``metadata.csv`` or ``metadata.jsonl`` instead of class folders: in each split, or at the root, where a file below
  ``train/`` or ``test/`` belongs to that split.

A class may be called ``train`` or ``test``: a folder of that name is a split only where it holds class folders or
metadata, or where all its neighbours have names of splits too.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kusabi.data.dataset import Dataset
from kusabi.data.enumeration import enumerated
from kusabi.data.listing import ROLES, Listed, Progress, build_dataset, composed
from kusabi.data.metadata import metadata_file, read_metadata
from kusabi.data.picture import decode_picture
from kusabi.data.picture_files import folders_in, pictures_below, pictures_in
from kusabi.errors import DataError, told

LABEL = "label"


def read_folder(
    root: Path,
    *,
    label_column: str = LABEL,
    group_column: str | None = None,
    skip_unreadable: bool = False,
    least_classes: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    """The data set in a folder; every picture is decoded once.

    Raises:
        DataError: If the folder is missing or cannot be used, naming all culprits of the first kind found.
    """
    try:
        if not root.exists():
            raise DataError(f"{root}: no such folder; give the folder that holds a folder for each class")
        if not root.is_dir():
            raise DataError(f"{root}: not a folder; give the folder that holds a folder for each class")
        splits, notes = _list(root, label_column, group_column)
    except OSError as error:
        raise DataError(told(error)) from None
    return build_dataset(
        str(root), root.resolve().name, splits, lambda file: decode_picture(root / file),
        notes=notes, skip_unreadable=skip_unreadable, least_classes=least_classes, progress=progress,
    )  # fmt: skip


def _list(root: Path, label_column: str, group_column: str | None) -> tuple[dict[str, list[Listed]], list[str]]:
    splits: dict[str, list[Listed]] = {}
    if (path := metadata_file(root)) is not None:
        listed = read_metadata(path, root, label_column, group_column)
        tops = [PurePosixPath(one.file).parts[0].lower() for one in listed]
        split = any(ROLES.get(top) == "train" for top in tops)
        for one, top in zip(listed, tops, strict=True):
            splits.setdefault(ROLES.get(top, "train") if split else "train", []).append(one)
        return splits, _unlisted(root, root, listed)
    roles = _split_folders(root)
    notes, empty = [], []
    if label_column != LABEL and not any(metadata_file(root / name) for name in roles or ("",)):
        raise DataError(
            f"{root}: label column '{label_column}' needs a metadata.csv there; class folders are labels without one"
        )
    if roles:
        beside = [path.name for path in folders_in(root) if path.name not in roles]
        notes += [f"folders beside the splits are not read: {enumerated(beside)}"] if beside else []
    for name, role in (roles or {"": "train"}).items():
        folder = root / name
        if (path := metadata_file(folder)) is not None:
            listed = read_metadata(path, root, label_column, group_column)
            said, vacant = _unlisted(root, folder, listed), []
        else:
            listed, said, vacant = _class_folders(root, folder)
            _check_group_column(folder, group_column)
        splits.setdefault(role, []).extend(listed)
        notes, empty = notes + said, empty + vacant
    if empty:
        raise DataError(f"class folders without a picture: {enumerated(empty)}; fill or remove them")
    return splits, notes


def _split_folders(root: Path) -> dict[str, str]:
    """Name of each split's folder -> its role; empty where the folder has no splits."""
    folders = folders_in(root)
    roles = {path.name: ROLES[path.name.lower()] for path in folders if path.name.lower() in ROLES}
    train = [path for path in folders if roles.get(path.name) == "train"]
    if any(folders_in(path) or metadata_file(path) for path in train):
        return roles
    sorted_into_classes = any(folders_in(root / name) or metadata_file(root / name) for name in roles)
    if len(roles) < len(folders) or not (sorted_into_classes or train):
        return {}
    if not train:
        raise DataError(f"{root}: {enumerated(list(roles))} but no train folder; add {root / 'train'} to learn from")
    return roles


def _class_folders(root: Path, folder: Path) -> tuple[list[Listed], list[str], list[str]]:
    """Pictures by class folder, notes, and the class folders that hold none."""
    listed, empty, others = [], [], Counter[str]()
    classes = folders_in(folder)
    for place in classes:
        pictures, ignored = pictures_below(place)
        listed += [Listed(path.relative_to(root).as_posix(), place.name) for path in pictures]
        empty += [] if pictures else [str(place)]
        others += ignored
    notes = []
    strays = pictures_in(folder)[0]
    if strays:
        why = "they lie outside of the class folders" if classes else "without class folders they have no labels"
        files = enumerated([path.relative_to(root).as_posix() for path in strays])
        notes.append(f"{len(strays)} pictures are left out, since {why}: {files}")
    if others:
        kinds = enumerated([f"{count} {suffix}" for suffix, count in sorted(others.items())])
        notes.append(f"files that are no pictures are left out: {kinds}")
    return listed, notes, empty


def _unlisted(root: Path, folder: Path, listed: Sequence[Listed]) -> list[str]:
    known = {one.file for one in listed}
    found = [path.relative_to(root).as_posix() for path in pictures_below(folder)[0]]
    # Some file systems open a name in either composition, and list it in one.
    otherwise = {composed(file) for file in known.difference(found)}
    left = [file for file in found if file not in known and composed(file) not in otherwise]
    return [f"{len(left)} pictures that the metadata do not list are left out: {enumerated(left)}"] if left else []


def _check_group_column(folder: Path, group_column: str | None) -> None:
    if group_column:
        raise DataError(
            f"{folder}: group column '{group_column}' needs a metadata.csv there, with file_name, label and group"
        )
