"""Progress bars on standard error; plain silence where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kusabi.recipes.watch import Watch, silent


@contextmanager
def progress(quiet: bool) -> Iterator[Watch]:
    """A watch that draws one bar a stage of more than one unit, with the facts beside it and the time left."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[facts]}"), console=console) as bars:
        known: dict[str, Any] = {}

        def watch(stage: str, done: int, total: int, **facts: Any) -> None:
            if total == 1:
                return
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total, facts="")
            shown = "  ".join(f"{name} {value:.3f}" for name, value in facts.items())
            bars.update(known[stage], completed=done, total=total, facts=shown)

        yield watch
