"""A remark for pictures that come in groups (lots, patients, cameras): what intervals made of them."""

from collections.abc import Mapping
from typing import Any

from kusabi.report import numbers
from kusabi.report.words import Words


def remarks_on_groups(task: Mapping[str, Any], words: Words) -> list[str]:
    """Where groups were given and some hold several of the pictures that judge: that they count, or that they do not.

    In files of older versions intervals know of none, and are too narrow.
    """
    groups, pictures = task.get("query_groups"), task.get("query_pictures")
    if groups is None or groups >= (pictures or 0):
        return []
    if task.get("intervals_by") == "groups":
        return [words("facts.by_group", groups=numbers.count(words, groups))]
    return [words("facts.grouped")]
