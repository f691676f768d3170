"""How a recipe tells the person at the keyboard where it is."""

from collections.abc import Callable
from typing import Any, Protocol


class Watch(Protocol):
    """Told about stages and their progress; ``facts`` are numbers worth showing, such as a loss.

    A stage of one unit says that something was done, for whoever counts its time; nobody is shown a bar for it.
    """

    def __call__(self, stage: str, done: int, total: int, **facts: Any) -> None:
        """``done`` of ``total`` units of ``stage``."""
        ...


def silent(stage: str, done: int, total: int, **facts: Any) -> None:
    """A watch that says nothing."""


def stage(watch: Watch, name: str) -> Callable[[int, int], None]:
    """A plain ``(done, total)`` callback for one stage."""
    return lambda done, total: watch(name, done, total)


def once(watch: Watch, name: str) -> Callable[[], None]:
    """A plain callback for a stage of one unit."""
    return lambda: watch(name, 1, 1)
