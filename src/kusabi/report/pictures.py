"""The pictures that changed sides, and the few of them that the page shows."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

SHOWN = 12

Flip = Mapping[str, Any]


def shown(flips: Sequence[Flip], pictured: Container[str] = (), limit: int = SHOWN) -> list[Flip]:
    """At most ``limit`` of them, those that have a thumbnail before those that have none, spread over the classes.

    Args:
        flips: Pictures with their ``file`` and ``label``.
        pictured: Files that have a thumbnail.
        limit: How many there is room for.
    """
    visible = _spread([flip for flip in flips if flip["file"] in pictured], limit)
    named = _spread([flip for flip in flips if flip["file"] not in pictured], limit - len(visible))
    order = list(dict.fromkeys(flip["label"] for flip in flips))
    return sorted([*visible, *named], key=lambda flip: order.index(flip["label"]))


def shown_files(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """The files whose thumbnails the page of an evaluation would like to have."""
    return tuple(flip["file"] for kind in ("fixed", "broken") for flip in shown(evaluation["flips"][kind]))


def _spread(flips: Sequence[Flip], limit: int) -> list[Flip]:
    """The first of every class, then the second, and so on."""
    queues: dict[str, list[Flip]] = {}
    for flip in flips:
        queues.setdefault(flip["label"], []).append(flip)
    turns = [(place, flip) for queue in queues.values() for place, flip in enumerate(queue)]
    return [flip for _, flip in sorted(turns, key=lambda turn: turn[0])[:limit]]
