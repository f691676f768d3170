"""Where things stand in the drawing of a learning curve, in a square of 100 by 100; the template scales and paints it.

Across stands the logarithm of the labels per class, up the accuracy, between the lowest and highest tenth in use.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

START, END = 7.0, 97.0  # of the width: the labels of the upright axis stand left of it
METHODS = ("class_mean", "linear_probe", "adapted")


def learning(found: Mapping[str, Any]) -> dict[str, Any]:
    """Lines of all methods, dots for draws, the law with its band, and both axes."""
    ours, labels = found["methods"]["adapted"], found["labels"]
    band, zero = ours["band"], found["zero_shot"]["accuracy"]
    lines = {method: found["methods"][method]["points"] for method in METHODS}
    used = [value for points in lines.values() for point in points for value in point["interval"]]
    used += [zero, *(value for point in ours["points"] for value in point["accuracies"])]
    used += [value for point in band if point["labels"] <= labels[-1] for value in point["interval"]]
    used += [point["accuracy"] for point in band]
    low, high = math.floor(10 * min(used) + 1e-9) / 10, math.ceil(10 * max(used) - 1e-9) / 10
    last = max([labels[-1], *(point["labels"] for point in band)])

    def across(at: float) -> float:
        return round(START + (END - START) * math.log(at / labels[0]) / math.log(last / labels[0]), 2)

    def up(share: float) -> float:
        return round(100 * (high - min(high, max(low, share))) / ((high - low) or 1), 2)

    def path(points: Sequence[Mapping[str, Any]], key: str = "accuracy") -> str:
        return "M" + " L".join(f"{across(point['labels'])} {up(point[key])}" for point in points)

    edge = [(point["labels"], point["interval"][1]) for point in band]
    edge += [(point["labels"], point["interval"][0]) for point in reversed(band)]
    beyond = [point for point in band if point["labels"] >= labels[-1]]
    return {
        "lines": [
            {
                "way": method,
                "path": path(points),
                "points": [
                    {
                        "x": across(point["labels"]), "y": up(point["accuracy"]),
                        "low": up(point["interval"][0]), "high": up(point["interval"][1]),
                        "dots": [up(one) for one in point["accuracies"]] if method == "adapted" else [],
                    }
                    for point in points
                ],
            }
            for method, points in lines.items()
        ],
        "zero": up(zero),
        "start": START,
        "band": "M" + " L".join(f"{across(at)} {up(share)}" for at, share in edge) + " Z" if edge else None,
        "law": path(beyond) if beyond else None,
        "measured": across(labels[-1]),
        "across": [{"at": across(at), "labels": shown} for at, shown in _ticks(found, last)],
        "up": [{"at": up(tick / 10), "percent": 10 * tick} for tick in range(round(10 * low), round(10 * high) + 1)],
    }  # fmt: skip


def _ticks(found: Mapping[str, Any], last: float) -> list[tuple[float, str]]:
    """The numbers measured, then doublings as far as the law goes."""
    ticks = [(at, str(shots)) for at, shots in zip(found["labels"], found["asked"]["shots"], strict=True)]
    following = 2 * found["labels"][-1]
    while following <= last * 1.001:
        ticks.append((following, f"{following:.0f}"))
        following *= 2
    return ticks
