"""What lies in a folder: sub-folders and picture files, in the order of their names, hidden ones left out."""

from collections import Counter
from pathlib import Path

from kusabi.data.picture import SUFFIXES


def folders_in(folder: Path) -> list[Path]:
    """Visible sub-folders, links to folders included."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path))


def pictures_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Picture files directly in a folder, known by suffix, and how many other files there are of each suffix."""
    pictures, others = [], Counter[str]()
    for path in sorted(folder.iterdir()):
        # A broken link counts, so that it is reported as unreadable.
        if _hidden(path) or not (path.is_file() or path.is_symlink()) or path.is_dir():
            continue
        if path.suffix.lower() in SUFFIXES:
            pictures.append(path)
        else:
            others[path.suffix.lower() or path.name] += 1
    return pictures, others


def pictures_below(folder: Path, above: frozenset[Path] = frozenset()) -> tuple[list[Path], Counter[str]]:
    """As ``pictures_in``, of the folder and everything below; links are followed, a loop of links only once."""
    real = folder.resolve()
    if real in above:
        return [], Counter()
    pictures, others = pictures_in(folder)
    for below in folders_in(folder):
        more, other = pictures_below(below, above | {real})
        pictures += more
        others += other
    return pictures, others


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__"))
