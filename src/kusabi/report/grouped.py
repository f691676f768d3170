"""A remark for pictures that come in groups (lots, patients, cameras), which no interval knows of."""

from collections.abc import Mapping
from typing import Any

from kusabi.report.words import Words


def remarks_on_groups(task: Mapping[str, Any], words: Words) -> list[str]:
    """That intervals are too narrow, where groups were given and some hold several of the pictures that judge."""
    groups, pictures = task.get("query_groups"), task.get("query_pictures")
    return [words("facts.grouped")] if groups is not None and groups < (pictures or 0) else []
