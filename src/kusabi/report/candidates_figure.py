"""Where things stand in the drawings of a comparison: one for each model, a bar in it for each way of answering.

Heights are pixels; across, everything is in percent of the width: names stand left of the bars, figures right of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.evaluation.pool import WAYS

START, END = 27.0, 84.0
HEADING, ROW, BAR, GAP = 24, 22, 12, 14


def ranked(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows that were measured, the most accurate first; of equal ones that which was recommended."""
    way, best = found["judged_by"], found["recommendation"]["best"]
    rows = [row for row in found["candidates"] if row["error"] is None]
    return sorted(rows, key=lambda row: (-row[way]["accuracy"], row["name"] != best, row["name"]))


def ways_of(found: Mapping[str, Any]) -> list[str]:
    """The ways of answering that were measured."""
    return [way for way in WAYS if way != "adapted" or found["asked"]["adapter"]]


def groups(found: Mapping[str, Any]) -> dict[str, Any]:
    """All bars with whiskers, ticks, and where guessing stands."""
    ways = ways_of(found)
    drawn = [
        {
            "name": row["name"],
            "bars": [
                {
                    "way": way,
                    "y": HEADING + place * ROW,
                    "middle": HEADING + place * ROW + BAR // 2,
                    "width": round((END - START) * row[way]["accuracy"], 2),
                    "low": _across(row[way]["interval"][0]),
                    "high": _across(row[way]["interval"][1]),
                    "accuracy": row[way]["accuracy"],
                    "interval": row[way]["interval"],
                }
                for place, way in enumerate(ways)
            ],
        }
        for row in ranked(found)
    ]
    ticks = [{"x": _across(share / 100), "percent": share} for share in (0, 25, 50, 75, 100)]
    guess, bottom = 1 / len(found["task"]["classes"]), HEADING + (len(ways) - 1) * ROW + BAR
    return {
        "groups": drawn, "ticks": ticks, "guess": {"x": _across(guess), "share": guess}, "start": START,
        "rail": END - START, "bar": BAR, "label": 13, "top": HEADING, "bottom": bottom, "height": bottom + GAP,
        "axis": 44 - GAP,
    }  # fmt: skip


def _across(share: float) -> float:
    return round(START + (END - START) * share, 2)


def timed_alike(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all were timed alike: on one processor and device, with as many threads."""
    return len({(row["speed"]["processor"], row["speed"]["device"], row["speed"]["threads"]) for row in rows}) == 1
