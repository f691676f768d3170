"""Pictures listed by some source become a Dataset: sides chosen, classes checked, every picture decoded once."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from kusabi.data.dataset import Dataset, Example
from kusabi.data.enumeration import enumerated
from kusabi.data.picture import pixel_digest
from kusabi.errors import DataError

Progress = Callable[[int, int], None]

# The words that `datasets` knows.
ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True)
class Listed:
    """A picture by name alone: its file, the name of its class, its group."""

    file: str
    label: str
    group: str | None = None


def build_dataset(
    place: str,
    name: str,
    splits: Mapping[str, Sequence[Listed]],
    read: Callable[[str], Image.Image],
    *,
    notes: Sequence[str] = (),
    skip_unreadable: bool = False,
    least_classes: int = 2,
    progress: Progress | None = None,
) -> Dataset:
    """Check the classes, decode every picture once and put the sides together.

    Args:
        place: Path or Hub id, for messages.
        name: What the data set is called.
        splits: ``train``, ``validation`` and ``test``, as far as there are any.
        read: File -> picture, from any thread; raises a DataError with the bare reason.
        notes: Of the source, so far.
        skip_unreadable: Leave unreadable pictures out, with a note, instead of refusing.
        least_classes: To learn from.
        progress: Told (done, total) in pictures, in this thread.

    Raises:
        DataError: Fewer than ``least_classes``, colliding class names, a class of the test split that training lacks,
            names that are not UTF-8, unreadable pictures, a test split of no others.
    """
    train, test, said = _two_sides({role: [_composed(one) for one in listed] for role, listed in splits.items()})
    _check_names(place, name, [*train, *test])
    _check_classes(place, train, test, least_classes)
    digests, reasons = _decode([one.file for one in (*train, *test)], read, progress)
    if reasons and not skip_unreadable:
        raise DataError(
            f"{len(reasons)} of {len(train) + len(test)} pictures cannot be read: "
            + enumerated([f"{place}/{file} ({reason})" for file, reason in reasons.items()], "; ")
            + "; repair or remove them, or leave them out with --skip-unreadable"
        )
    if reasons:
        said.append(f"{len(reasons)} unreadable pictures are left out: {enumerated(list(reasons))}")
    readable = [one for one in train if one.file in digests]
    lost = sorted({one.label for one in train} - {one.label for one in readable})
    if lost:
        raise DataError(f"{place}: no picture of {_quoted(lost)} can be read ({enumerated(list(reasons))})")
    judging = [one for one in test if one.file in digests]
    if test and not judging:
        files = enumerated([one.file for one in test])
        raise DataError(
            f"{place}: no picture of the test split can be read ({files}); repair them, or remove the split"
        )
    index = {label: at for at, label in enumerate(sorted({one.label for one in readable}))}
    sides = [
        tuple(Example(one.file, index[one.label], one.group, digests[one.file]) for one in side)
        for side in (readable, judging)
    ]
    unjudged = sorted(set(index) - {one.label for one in judging}) if test else []
    if unjudged:
        said.append(f"the test split has no picture of {_quoted(unjudged)}: learned, but never judged")
    alone = [one.file for side in sides for one in side if one.group is None]
    if 0 < len(alone) < len(sides[0]) + len(sides[1]):
        said.append(f"{len(alone)} pictures without a group are each a group of their own: {enumerated(alone)}")
    return Dataset(name, tuple(index), sides[0], sides[1], (*notes, *said), place, read)


def composed(name: str) -> str:
    """One of the two spellings that file systems have for the same accented or Japanese name."""
    return unicodedata.normalize("NFC", name)


def _composed(one: Listed) -> Listed:
    return Listed(one.file, composed(one.label), None if one.group is None else composed(one.group))


def _two_sides(splits: Mapping[str, Sequence[Listed]]) -> tuple[list[Listed], list[Listed], list[str]]:
    train, validation, test = (list(splits.get(role, ())) for role in ("train", "validation", "test"))
    said = []
    if validation and test:
        said.append(f"the {len(validation)} validation pictures join the training side; the test split judges")
        train += validation
    elif validation:
        said.append("there is no test split: the validation split judges instead")
        test = validation
    return sorted(train, key=lambda one: one.file), sorted(test, key=lambda one: one.file), said


def _check_names(place: str, name: str, listed: Sequence[Listed]) -> None:
    # Whatever is no text would fail later, in the middle of writing a run.
    if _broken(name):
        raise DataError(f"{enumerated([place])}: the name of this folder is not UTF-8; rename it")
    names = [one.file for one in listed if _broken(one.file + one.label + (one.group or ""))]
    if names:
        raise DataError(f"{place}: names, labels or groups that are not UTF-8: {enumerated(names)}; rename them")


def _broken(text: str) -> bool:
    return text != text.encode("utf-8", "replace").decode()


def _check_classes(place: str, train: Sequence[Listed], test: Sequence[Listed], least: int) -> None:
    learned = {one.label for one in train}
    alike: dict[str, set[str]] = defaultdict(set)
    for label in learned | {one.label for one in test}:
        alike[spelling(label)].add(label)
    collisions = [_quoted(sorted(labels)) for _, labels in sorted(alike.items()) if len(labels) > 1]
    if collisions:
        raise DataError(
            f"{place}: class names that differ only in capitals, spaces, '_', '-' or width: "
            f"{enumerated(collisions, '; ')}; rename them, or put their pictures together"
        )
    if "" in alike:
        raise DataError(f"{place}: the class name {_quoted(sorted(alike['']))} says nothing; rename it")
    unlearned = sorted({one.label for one in test} - learned)
    if learned and unlearned:
        raise DataError(
            f"{place}: the test split has pictures of {_quoted(unlearned)}, the training side has none; "
            f"add some, or take the class out of the test split"
        )
    if len(learned) < max(least, 1):
        number = "one class" if len(learned) == 1 else f"{len(learned)} classes"
        found = f"only {number}, {_quoted(sorted(learned))}" if learned else "no labelled picture to learn from"
        needed = {1: "one class is", 2: "two classes are"}.get(least, f"{least} classes are")
        raise DataError(f"{place}: {found}; at least {needed} needed, each a folder of its own or a label")


def spelling(label: str) -> str:
    """A class name without what makes no other class of it: capitals, width, and what stands between words."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


def _quoted(labels: Sequence[str]) -> str:
    return enumerated([f"'{label}'" for label in labels])


def _decode(
    files: Sequence[str], read: Callable[[str], Image.Image], progress: Progress | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of the pictures that can be read, and reasons of the others, by file."""

    def digest(file: str) -> tuple[str | None, str]:
        try:
            return pixel_digest(read(file)), ""
        except DataError as error:
            return None, str(error)

    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for done, (file, (found, reason)) in enumerate(zip(files, pool.map(digest, files), strict=True), 1):
            if found is None:
                reasons[file] = reason
            else:
                digests[file] = found
            if progress:
                progress(done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    return digests, reasons
