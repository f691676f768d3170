"""Which pictures changed from wrong to right, and which from right to wrong: listed by file, never only counted."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from kusabi.errors import DataError
from kusabi.evaluation.evaluate import class_indices


def flips(
    before: ArrayLike, after: ArrayLike, labels: ArrayLike, files: Sequence[str], classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Pictures ``fixed`` (wrong before, right after) and ``broken`` (right before, wrong after), in the order given.

    Args:
        before: Predicted class indices, shape ``(n,)``.
        after: As ``before``, of the other way of answering.
        labels: True class indices, shape ``(n,)``.
        files: Names of the pictures.
        classes: Names of the classes; the result holds names, not indices.

    Raises:
        DataError: When the lengths differ or an index is out of range.
    """
    columns = [class_indices(column, len(classes)) for column in (labels, before, after)]
    if len({len(files), *(len(column) for column in columns)}) != 1:
        raise DataError(f"{len(files)} files but {[len(c) for c in columns]} labels, answers before and after")
    found: dict[str, list[dict[str, Any]]] = {"fixed": [], "broken": []}
    for file, label, old, new in zip(files, *columns, strict=True):
        if (old == label) != (new == label):
            names = {"file": file, "label": classes[label], "before": classes[old], "after": classes[new]}
            found["fixed" if new == label else "broken"].append(names)
    return found
