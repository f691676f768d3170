"""Pictures of every class, in a fixed order, and how they become one side of an ordinary folder."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

Pool = Mapping[str, Sequence[Path | Image.Image]]  # class -> picture files, or pictures that have no file


def lay_out(learned: Pool, judged: Pool, folder: Path) -> None:
    """Write ``train/<class>/`` and ``test/<class>/``; what was there before is replaced."""
    aside = folder.with_name(f".{folder.name}")
    for stale in (aside, folder):
        shutil.rmtree(stale, ignore_errors=True)
    for side, pool in (("train", learned), ("test", judged)):
        for name, pictures in pool.items():
            place = aside / side / name
            place.mkdir(parents=True)
            for number, picture in enumerate(pictures):
                _write(picture, place, number)
    aside.replace(folder)


def _write(picture: Path | Image.Image, place: Path, number: int) -> None:
    if isinstance(picture, Image.Image):
        picture.save(place / f"{number:04}.png")
    else:
        shutil.copyfile(picture, place / f"{number:04}{picture.suffix}")


def halves(pool: Pool) -> tuple[Pool, Pool]:
    """The first and the second half of every class: one side to learn from and one that judges, out of one."""
    middle = {name: len(pictures) // 2 for name, pictures in pool.items()}
    return {name: pool[name][:at] for name, at in middle.items()}, {
        name: pool[name][at:] for name, at in middle.items()
    }


def balanced(pool: Pool, most: int) -> Pool:
    """The first pictures of each class, equally many, at most ``most`` in all."""
    each = min(most // len(pool), *(len(pictures) for pictures in pool.values()))
    return {name: pictures[:each] for name, pictures in pool.items()}
