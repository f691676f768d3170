"""The eleven data sets that few-shot papers report, in the layout and splits of CoOp (its ``DATASETS.md``).

They are looked for under ``classic/`` in the cache, a folder or a link, and are nobody's to ship. Pictures that judge
are the test part, of ImageNet the validation part, as is usual; the validation parts of the others are left alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.pool import Pool
from benchmarks.tasks import Task
from kusabi.errors import DataError

FOLDER = "classic"
SIZE = 224
MOST = 64  # pictures of a class to draw few shots from
SPLITS = ("train", "test")

Found = Iterable[tuple[str, str]]  # picture relative to the images, class


def _by_json(file: str, root: Path) -> tuple[Found, Found]:
    """CoOp's own splits: lists of picture, label and class."""
    splits = json.loads(_text(root / file))
    return tuple([(path, name) for path, _label, name in splits[part]] for part in SPLITS)  # type: ignore[return-value]


def _aircraft(root: Path) -> tuple[Found, Found]:
    """The data set's own lists: a line is a number and a class of several words."""

    def listed(part: str) -> Found:
        lines = [line.split(maxsplit=1) for line in _text(root / f"images_variant_{part}.txt").splitlines() if line]
        return [(f"{number}.jpg", name.strip()) for number, name in lines]

    return listed("train"), listed("test")


def _imagenet(root: Path) -> tuple[Found, Found]:
    """Folders named by synset; CLIP's names of the classes, where two classes may share one."""
    lines = [line.split(maxsplit=1) for line in _text(root / "classnames.txt").splitlines() if line]
    names = [name.strip() for _, name in lines]
    words = {
        line[0]: name if names.count(name) == 1 else f"{name} {line[0]}"
        for line, name in zip(lines, names, strict=True)
    }

    def part(folder: str) -> Found:
        base = root / "images"
        return [
            (str(path.relative_to(base)), word)
            for synset, word in words.items()
            for path in sorted((base / folder / synset).iterdir())
        ]

    return part("train"), part("val")


@dataclass(frozen=True)
class _Source:
    """``listed`` gives both parts of the data set in ``folder``; pictures are relative to ``images`` in it."""

    folder: str
    images: str
    listed: Callable[[Path], tuple[Found, Found]]


def _zhou(folder: str, images: str, name: str) -> _Source:
    return _Source(folder, images, partial(_by_json, f"split_zhou_{name}.json"))


SOURCES: Mapping[str, _Source] = {
    "imagenet": _Source("imagenet", "images", _imagenet),
    "caltech101": _zhou("caltech-101", "101_ObjectCategories", "Caltech101"),
    "oxford_pets": _zhou("oxford_pets", "images", "OxfordPets"),
    "stanford_cars": _zhou("stanford_cars", "", "StanfordCars"),
    "oxford_flowers": _zhou("oxford_flowers", "jpg", "OxfordFlowers"),
    "food101": _zhou("food-101", "images", "Food101"),
    "fgvc_aircraft": _Source("fgvc_aircraft", "images", _aircraft),
    "sun397": _zhou("sun397", "SUN397", "SUN397"),
    "dtd": _zhou("dtd", "images", "DescribableTextures"),
    "eurosat": _zhou("eurosat", "2750", "EuroSAT"),
    "ucf101": _zhou("ucf101", "UCF-101-midframes", "UCF101"),
}


def classic(name: str, cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from, at most ``MOST`` of a class, and pictures that judge.

    Raises:
        DataError: Naming the file that is not there.
    """
    source = SOURCES[name]
    root = cache / FOLDER / source.folder
    learned, judged = (_pool(found, root / source.images) for found in source.listed(root))
    return {of: pictures[:: -(-len(pictures) // MOST)] for of, pictures in learned.items()}, judged


def _pool(found: Found, images: Path) -> dict[str, list[Path]]:
    pool: dict[str, list[Path]] = {}
    for path, name in found:
        pool.setdefault(name.replace("/", "-"), []).append(images / path)
    return dict(sorted(pool.items()))


def _text(path: Path) -> str:
    if not path.exists():
        raise DataError(
            f"{path}: not there; lay the data set out as CoOp's DATASETS.md says, and link its root to "
            f"{FOLDER} in the cache"
        )
    return path.read_text(encoding="utf-8")


CLASSIC = {name: Task("CoOp's layout, given by you", SIZE, partial(classic, name)) for name in SOURCES}
