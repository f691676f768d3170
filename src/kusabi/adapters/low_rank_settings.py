"""What a low-rank adapter may be told: by its maker, or by a card that comes from anywhere."""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from kusabi.errors import AdapterError

Shrinkage = float | Sequence[float] | None
SETTINGS = ("ranks", "alphas", "rank_stabilized", "dropout", "shrinkage")


def wrong_settings(ranks: Any, alphas: Any, rank_stabilized: Any, dropout: Any, shrinkage: Any) -> list[str]:
    """Everything that is wrong with settings in the order of ``SETTINGS``, whatever they are; empty where they fit."""
    wrong = []
    for key, found in (("ranks", ranks), ("alphas", alphas)):
        if not isinstance(found, Mapping):
            wrong.append(f"{key} must be one number for each weight, not {found!r}")
    for name, r in ranks.items() if isinstance(ranks, Mapping) else ():
        if not isinstance(r, int) or isinstance(r, bool) or r < 1:
            wrong.append(f"{name}: rank {r!r} must be a whole number from 1")
    for name, alpha in alphas.items() if isinstance(alphas, Mapping) else ():
        if not _is_number(alpha) or not alpha > 0:
            wrong.append(f"{name}: alpha {alpha!r} must be a positive number")
    if not isinstance(rank_stabilized, bool):
        wrong.append(f"rank_stabilized must be true or false, not {rank_stabilized!r}")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        wrong.append(f"dropout must be in [0, 1), not {dropout!r}")
    if shrinkage is not None and not _is_shrinkage(shrinkage):
        wrong.append(
            f"shrinkage must be a number from 0, or a list of such numbers that does not fall, not {shrinkage!r}"
        )
    return wrong


def rising_shrinkage(
    first: float, last: float, stages: int, spacing: Literal["linear", "geometric"] = "linear"
) -> tuple[float, ...]:
    """SoRA's sparsifying schedule (Ding et al., arXiv 2311.11696, section 3.3): a rising list of shrinkages.

    Args:
        first: Of the first stage.
        last: Of the last stage.
        stages: How many there are; both ends count.
        spacing: Equal steps, or equal factors between one stage and the next, for which ``first`` must be above 0.

    Raises:
        AdapterError: If these make no rising list.
    """
    if not 0 <= first < last or stages < 2:
        raise AdapterError(f"shrinkage cannot rise from {first:g} to {last:g} in {stages} stages; 2 or more are needed")
    if spacing == "geometric" and first == 0:
        raise AdapterError("no factor leads away from a shrinkage of 0; start above it, or use linear spacing")
    shares = [number / (stages - 1) for number in range(stages)]
    if spacing == "geometric":
        found = [first * (last / first) ** share for share in shares]
    else:
        found = [first + (last - first) * share for share in shares]
    return (*found[:-1], float(last))


def strength_at(shrinkage: float | Sequence[float], progress: float) -> float:
    """The shrinkage of the stage whose update brought training to a share ``progress``, in (0, 1], of all updates."""
    if not isinstance(shrinkage, Sequence):
        return shrinkage
    stage = math.ceil(round(progress * len(shrinkage), 6)) - 1  # a third of the way, three stages: 1, but for rounding
    return shrinkage[min(max(stage, 0), len(shrinkage) - 1)]


def _is_shrinkage(found: Any) -> bool:
    """One strength, or those of two stages or more, which do not fall."""
    if not isinstance(found, Sequence):
        return _is_number(found) and found >= 0
    if len(found) < 2 or not all(_is_number(one) and one >= 0 for one in found):
        return False
    return all(before <= after for before, after in pairwise(found))


def _is_number(found: Any) -> bool:
    """Finite, and no larger than floats go: JSON writes whole numbers of any length."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= sys.float_info.max
