"""One row of the table of peers."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers.answers import Answers


@dataclass(frozen=True)
class Peer:
    """A method: ``title`` as tables show it, its paper, what runs it, and whether that needs the package ``peft``."""

    name: str
    title: str
    paper: str
    run: Callable[..., Answers]  # of a material, and of options that a test or a variant sets
    needs_peft: bool = False
