"""Data sets of the `datasets` library: folders that ``save_to_disk`` wrote, and ids on the Hub."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from kusabi.data.dataset import Dataset
from kusabi.data.enumeration import enumerated
from kusabi.data.listing import ROLES, Listed, Progress, build_dataset
from kusabi.data.picture import decode_picture
from kusabi.errors import DataError

if TYPE_CHECKING:
    import datasets


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def read_saved(folder: Path, **options: Any) -> Dataset:
    """The data set in a folder that ``save_to_disk`` wrote.

    Args:
        folder: Of a ``datasets.Dataset`` or ``DatasetDict``.
        **options: As for ``kusabi.data.source.read_dataset``.

    Raises:
        DataError: If the folder is damaged or its columns or pictures cannot be used.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        # Arrow, fsspec, json and pandas each have their own exceptions for a damaged folder.
        raise DataError(
            f"{folder}: a saved dataset that cannot be loaded ({_first_line(error)}); save it again"
        ) from None
    return _read(str(folder), folder.resolve().name, loaded, **options)


def read_hub(name: str, **options: Any) -> Dataset:
    """The data set ``owner/name`` on the Hugging Face Hub, or its copy in the local cache.

    Raises:
        DataError: If there is none, it cannot be fetched, or its columns or pictures cannot be used.
    """
    import datasets
    from datasets import config

    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:
        if config.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set and the local cache has no such dataset; unset it to download"
        else:
            why = f"the Hub did not give it either ({_first_line(error)})"
        raise DataError(f"{name}: there is no such folder, and {why}; check the spelling") from None
    return _read(name, name, loaded, **options)


def _read(
    place: str,
    name: str,
    loaded: "datasets.Dataset | datasets.DatasetDict",
    *,
    label_column: str = "label",
    group_column: str | None = None,
    skip_unreadable: bool = False,
    least_classes: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    # A stored output format (such as torch's) would change what a row holds.
    splits_of = loaded if isinstance(loaded, dict) else {"train": loaded}
    tables = {str(key): table.with_format(None) for key, table in splits_of.items()}
    roles = {key: ROLES[key.lower()] for key in tables if key.lower() in ROLES} or dict.fromkeys(tables, "train")
    if "train" not in roles.values() or len(set(roles.values())) == 1 < len(roles):
        raise DataError(f"{place}: no train split; it has {enumerated(list(tables))}; rename the one to learn from")
    beside = [key for key in tables if key not in roles]
    notes = [f"splits that are not read: {enumerated(beside)}"] if beside else []
    splits: dict[str, list[Listed]] = {}
    rows: dict[str, Callable[[int], Any]] = {}
    for key, role in roles.items():
        rows[key] = _picture_rows(f"{place}/{key}", tables[key])
        listed = _listed(place, key, tables[key], label_column, group_column)
        if not listed and len(tables[key]):
            notes.append(f"split {key} has no labels and is left out")
        splits.setdefault(role, []).extend(listed)
    return build_dataset(
        place, name, splits, lambda file: _decode(file, rows),
        notes=notes, skip_unreadable=skip_unreadable, least_classes=least_classes, progress=progress,
    )  # fmt: skip


def _picture_rows(place: str, table: "datasets.Dataset") -> Callable[[int], Any]:
    """Row number -> the stored picture, not decoded."""
    import datasets

    columns = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise DataError(f"{place}: no column of type Image; it has {_columns(table)}; cast one to datasets.Image")
    column = "image" if "image" in columns else columns[0]
    stored = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return lambda row: stored[row][column]


def _decode(file: str, rows: Mapping[str, Callable[[int], Any]]) -> Image.Image:
    key, row = file.rsplit("/", 1)
    stored = rows[key](int(row))
    if not stored or not (stored["bytes"] is not None or stored["path"]):
        raise DataError("the row holds no picture")
    return decode_picture(Path(stored["path"]) if stored["bytes"] is None else io.BytesIO(stored["bytes"]))


def _listed(
    place: str, key: str, table: "datasets.Dataset", label_column: str, group_column: str | None
) -> list[Listed]:
    """The pictures of one split; none where no row has a label."""
    wanted = [column for column in (label_column, group_column) if column]
    missing = [f"'{column}'" for column in wanted if column not in table.column_names]
    if missing:
        raise DataError(
            f"{place}/{key}: no column {' and no column '.join(missing)}; it has {_columns(table)}; choose another "
            "with --label-column or --group-column"
        )
    labels = _labels(f"{place}/{key}", table, label_column)
    groups = [_group(value) for value in table[group_column]] if group_column else None
    blank = [row for row, label in enumerate(labels) if label is None]
    if blank and len(blank) < len(labels):
        rows = enumerated([f"{key}/{row}" for row in blank])
        raise DataError(f"{place}: rows without a label: {rows}; label or remove them")
    return [
        Listed(f"{key}/{row}", label, groups[row] if groups else None)
        for row, label in enumerate(labels)
        if label is not None
    ]


def _group(value: Any) -> str | None:
    """Nothing for a cell that says nothing: a picture of its own, as in a metadata file."""
    return None if value is None else str(value).strip() or None


def _labels(place: str, table: "datasets.Dataset", column: str) -> list[str | None]:
    import datasets

    feature, values = table.features[column], table[column]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names  # -1 stands for no label
        return [names[value] if value is not None and value >= 0 else None for value in values]
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "bool"):
        return [str(value) if value not in (None, "") else None for value in values]
    if isinstance(feature, datasets.Value) and "int" in feature.dtype:
        return [None if value is None else str(value) for value in values]
    raise DataError(f"{place}: column '{column}' holds no class names; it has {_columns(table)}")


def _columns(table: "datasets.Dataset") -> str:
    kinds = {name: getattr(feature, "dtype", None) for name, feature in table.features.items()}
    return enumerated([f"'{name}' ({kind or type(table.features[name]).__name__})" for name, kind in kinds.items()])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
