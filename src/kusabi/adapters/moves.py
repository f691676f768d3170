"""When a support moves while training, how much of it and by what rule; and what one move did."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kusabi.errors import AdapterError, listed


@dataclass(frozen=True)
class Moves:
    """How a support moves. The default never does.

    Moves come after the updates ``phase``, ``phase + every``, ``phase + 2 * every``, … (a phase of 0 counts as
    ``every``).

    Attributes:
        every: Updates from one move to the next (T); 0 keeps the support as it is.
        phase: Updates before the first move, below ``every``.
        share: Share of the entries that is replaced, before annealing.
        first_share: Share of the first move alone; that of the schedule when absent.
        schedule: How the share falls to zero at the last update: ``linear`` as in SpIEL, or ``cosine``.
        rho: Share of the entering entries that is drawn at random; the others are chosen by their gradients.
        weakest: Entries with the smallest |value| or |momentum| (first moment) leave.
        window: Updates before a move whose gradients count. Candidates are the largest gradients of the first backward
            of the window; means are taken over all its updates.
        seeding: First state of an entry chosen by its gradients. ``mean``: moments are the means of g and g^2, aged by
            the updates counted, as in SpIEL's code, which then corrects them for a bias they do not have (after 5
            updates the entry learns at a sixth of the rate). ``unbiased``: moments as if the entry had
            met those means since the window began. ``zero``: none. Entries drawn at random always start from zero.
        scope: Entries leave and enter within each ``target``, whose number is kept, or among ``all`` of them.
        union: The unbounded mode of SO, see ``presets.SO``; only ``every`` has a meaning then.
    """

    every: int = 0
    phase: int = 0
    share: float = 0.0
    first_share: float | None = None
    schedule: Literal["linear", "cosine"] = "linear"
    rho: float = 0.5
    weakest: Literal["value", "momentum"] = "value"
    window: int = 1
    seeding: Literal["mean", "unbiased", "zero"] = "unbiased"
    scope: Literal["target", "all"] = "target"
    union: bool = False

    def __post_init__(self) -> None:
        shares = {"share": self.share, "rho": self.rho, "first_share": self.first_share or 0.0}
        wrong = [f"{name} is {value}, not within 0 and 1" for name, value in shares.items() if not 0 <= value <= 1]
        if self.every < 0:
            wrong.append(f"every is {self.every}; give the updates from one move to the next, or 0 for none")
        elif not 0 <= self.phase < max(1, self.every):
            wrong.append(f"phase is {self.phase}, not below every = {self.every}")
        if self.window < 1:
            wrong.append(f"window is {self.window}; count at least one update")
        if self.union and not self.every:
            wrong.append("union needs every: the updates from one drawing to the next")
        if wrong:
            raise AdapterError("moves of the support: " + listed(wrong, "; "))

    @property
    def by_gradient(self) -> bool:
        """Whether moves look at dense gradients."""
        return bool(self.every) and not self.union and self.rho < 1

    def due(self, step: int) -> bool:
        """Whether a move comes after update ``step``, counted from 1."""
        return self.every > 0 and step > 0 and step % self.every == self.phase

    def next_due(self, step: int) -> int:
        """The first update from ``step`` on that a move comes after; ``every`` must not be 0."""
        return step + (self.phase - step) % self.every

    def replaced(self, step: int, steps: int) -> float:
        """Share of the entries replaced after update ``step`` of ``steps``."""
        if not self.due(step) or step > steps:
            return 0.0
        if self.first_share is not None and step == (self.phase or self.every):
            return self.first_share
        if self.schedule == "linear":
            return self.share * (1 - step / steps)
        return self.share * 0.5 * (1 + math.cos(math.pi * step / steps))


STILL = Moves()
"""A support that stays as it is."""


@dataclass(frozen=True)
class Move:
    """What became of the entries. ``sources``, ``(entries,)`` int64: the row of each before, or -1 where it entered."""

    sources: Tensor

    @property
    def entered(self) -> int:
        """How many entries are new."""
        return int((self.sources < 0).sum())

    def carried(self, rows: Tensor) -> Tensor:
        """A tensor of one row per entry before the move, as it is after it; zero where an entry is new."""
        after = rows.new_zeros(len(self.sources), *rows.shape[1:])
        kept = self.sources >= 0
        after[kept] = rows[self.sources[kept]]
        return after
