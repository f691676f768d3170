"""What a measure found, as plain data."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Of at least one measurement."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Record:
    """One line of the results.

    ``measure`` is a key of ``BOUNDS``, or the name of a curve or table that has no bound. ``value`` is what the bound
    judges, None where ``note`` says why there is none. ``ours`` and ``peer`` are measurements by name, in seconds or
    bytes; ``facts`` are what else one must know to judge them.
    """

    measure: str
    model: str
    case: str
    value: float | None
    ours: Mapping[str, Any] = field(default_factory=dict)
    peer: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data; four significant digits, which is more than a clock can tell."""
        return _rounded(asdict(self))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
