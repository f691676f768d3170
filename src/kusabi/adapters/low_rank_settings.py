"""What a low-rank adapter may be told: by its maker, or by a card that comes from anywhere."""

import sys
from collections.abc import Mapping
from typing import Any

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
    if shrinkage is not None and not (_is_number(shrinkage) and shrinkage >= 0):
        wrong.append(f"shrinkage must be a number from 0, not {shrinkage!r}")
    return wrong


def _is_number(found: Any) -> bool:
    """Finite, and no larger than floats go: JSON writes whole numbers of any length."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= sys.float_info.max
