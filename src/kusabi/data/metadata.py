"""metadata.csv and metadata.jsonl: a row a picture, as in Hugging Face's imagefolder."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kusabi.data.enumeration import enumerated
from kusabi.data.listing import Listed, composed
from kusabi.errors import DataError

NAMES = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"

Row = tuple[int, dict[str | None, Any]]  # line in the file, column -> value


def metadata_file(folder: Path) -> Path | None:
    """The metadata file of a folder, if it has one.

    Raises:
        DataError: If it has two, or one in a format that is not read.
    """
    found = [folder / name for name in (*NAMES, "metadata.parquet") if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: {enumerated([path.name for path in found])} side by side; keep one")
    if found and found[0].name not in NAMES:
        raise DataError(f"{found[0]}: parquet is not read here; save it as {' or '.join(NAMES)}")
    return found[0] if found else None


def read_metadata(path: Path, root: Path, label_column: str, group_column: str | None) -> list[Listed]:
    """The pictures that a metadata file lists, their files relative to ``root``.

    ``file_name`` is relative to the folder of the metadata file; accents and Japanese may be composed otherwise than on
    disk, whose spelling is the one returned. An empty group means a picture of its own.

    Raises:
        DataError: If the file cannot be understood, a column is missing, a row lacks its file name or label, or files
            are missing, listed twice or outside of the folder.
    """
    rows = _rows(path)
    _check_columns(path, rows, [FILE, label_column, *([group_column] if group_column else [])])
    blank = [f"line {line}" for line, row in rows if not (_text(row.get(FILE)) and _text(row.get(label_column)))]
    _refuse(path, blank, f"no {FILE} or no {label_column}", "fill it in, or remove the line")
    files = [PurePosixPath(_text(row[FILE]).replace("\\", "/")) for _, row in rows]
    outside = [str(file) for file in files if file.is_absolute() or ".." in file.parts]
    _refuse(path, outside, "files outside of its folder", f"give each {FILE} relative to the metadata file")
    files = _as_on_disk(path.parent, files)
    seen: set[PurePosixPath] = set()
    twice = [str(file) for file in files if file in seen or seen.add(file)]
    _refuse(path, twice, "files listed twice", "keep one line for each")
    missing = [str(path.parent / file) for file in files if not (path.parent / file).is_file()]
    _refuse(path, missing, "files that are not there", "restore them, or remove their lines")
    below = PurePosixPath(path.parent.relative_to(root).as_posix())
    return [
        Listed(str(below / file), _text(row[label_column]), _text(row.get(group_column)) or None)
        for file, (_, row) in zip(files, rows, strict=True)
    ]


def _as_on_disk(folder: Path, files: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Files that are not there by another composition of the same names, where exactly one fits."""
    held: dict[Path, dict[str, list[str]]] = {}  # folder -> composed name -> the names there

    def spelled(at: Path, name: str) -> str:
        if at not in held:
            held[at] = {}
            for path in at.iterdir() if at.is_dir() else ():
                held[at].setdefault(composed(path.name), []).append(path.name)
        found = held[at].get(composed(name), [])
        return found[0] if len(found) == 1 else name

    def found(file: PurePosixPath) -> PurePosixPath:
        if (folder / file).exists():
            return file
        at = folder
        for part in file.parts:
            at = at / (part if (at / part).exists() else spelled(at, part))
        return PurePosixPath(at.relative_to(folder).as_posix())

    return [found(file) for file in files]


def _rows(path: Path) -> list[Row]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    rows = list(_csv_rows(path, content) if path.suffix == ".csv" else _json_rows(path, content))
    if not rows:
        raise DataError(f"{path}: lists no picture; write a line for each")
    return rows


def _csv_rows(path: Path, content: str) -> Iterable[Row]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                raise DataError(f"{path}: line {reader.line_num} does not have {count} fields like the first line")
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not valid CSV ({error})") from None


def _json_rows(path: Path, content: str) -> Iterable[Row]:
    for line, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {line} is not valid JSON ({error.msg})") from None
        except (ValueError, RecursionError):
            raise DataError(f"{path}: line {line} has a number too long or is nested too deeply to be read") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {line} is not a JSON object; write one for each picture")
        yield line, row


def _check_columns(path: Path, rows: Sequence[Row], wanted: Sequence[str]) -> None:
    known = list(dict.fromkeys(column for _, row in rows for column in row))
    missing = [f"'{column}'" for column in wanted if column not in known]
    if missing:
        have = enumerated([f"'{column}'" for column in known])
        remedy = "rename one, or choose another with --label-column or --group-column"
        if len(known) == 1 and known[0] and any(mark in known[0] for mark in ";\t|"):
            remedy = "separate columns by commas"
        elif f"'{FILE}'" in missing:
            remedy = f"name the column with the files {FILE}"
        raise DataError(f"{path}: no column {' and no column '.join(missing)}; it has {have}; {remedy}")


def _refuse(path: Path, culprits: Sequence[str], what: str, remedy: str) -> None:
    if culprits:
        raise DataError(f"{path}: {what}: {enumerated(culprits)}; {remedy}")


def _text(value: Any) -> str:
    """A cell as text; nothing for a cell that holds no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() if isinstance(value, str | int | float) else ""
