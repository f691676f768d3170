"""Where things stand in the drawings. The template draws; nothing here knows colours or words.

Bars and curves are placed in percent of the width, so that text keeps its size on a phone and on paper.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kusabi.evaluation.pool import WAYS

ROW = 58  # pixels a bar takes, its label included
BAR_TOP, BAR_HEIGHT = 24, 24
CURVE_POINTS = 400
SHADES = 5


def bars(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Four bars with whiskers and dots for seeds, and the marks that trivial answers would reach."""
    rows = [
        {
            "way": way,
            "y": BAR_TOP + index * ROW,
            "label_y": BAR_TOP + index * ROW - 8,
            "middle": BAR_TOP + index * ROW + (9 if "accuracies" in evaluation[way] else BAR_HEIGHT // 2),
            "dots_y": BAR_TOP + index * ROW + 18,
            "width": _percent(evaluation[way]["accuracy"]),
            "low": _percent(evaluation[way]["interval"][0]),
            "high": _percent(evaluation[way]["interval"][1]),
            "dots": [_percent(one) for one in evaluation[way].get("accuracies", [])],
            "accuracy": evaluation[way]["accuracy"],
            "interval": evaluation[way]["interval"],
        }
        for index, way in enumerate(WAYS)
    ]
    bottom = BAR_TOP + len(WAYS) * ROW - (ROW - BAR_HEIGHT) + 5
    marks = [
        {"x": _percent(mark["share"]), "left": mark["share"] > 0.5, "y": bottom + 36 + 18 * index, **mark}
        for index, mark in enumerate(_trivial(evaluation))
    ]
    ticks = [{"x": tick, "share": tick / 100} for tick in (0, 25, 50, 75, 100)]
    height = marks[-1]["y"] + 6
    return {"rows": rows, "marks": marks, "ticks": ticks, "bottom": bottom, "height": height, "bar": BAR_HEIGHT}


def _trivial(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What guessing reaches, and, where it is clearly more, what always naming the largest class reaches."""
    per_class = evaluation["zero_shot"]["per_class"]
    total, guess = sum(row["n"] for row in per_class), 1 / len(per_class)
    largest = max(per_class, key=lambda row: row["n"])
    marks = [{"kind": "guess", "share": guess, "name": ""}]
    if total and largest["n"] / total > guess + 0.01:
        marks.append({"kind": "largest", "share": largest["n"] / total, "name": largest["class"]})
    return marks


def _percent(share: float) -> str:
    return f"{share * 100:.2f}"


def model_map(targets: Sequence[Mapping[str, Any]], layers: Mapping[str, int]) -> dict[str, Any]:
    """Both towers as stacked blocks, the bottom layer below; adapted blocks with their entries and a shade 1 to 5."""
    entries: dict[tuple[str, int], int] = {}
    for target in targets:
        place = (target["tower"], target["layer"])
        entries[place] = entries.get(place, 0) + target["entries"]
    depth = {
        tower: max([layers.get(tower) or 0, *(layer + 1 for name, layer in entries if name == tower)])
        for tower in ("vision", "text")
    }
    tallest, most = max(depth.values()), max(entries.values(), default=1)
    block = 22 if tallest <= 16 else 16 if tallest <= 32 else 12
    top, step = 74, block + 3
    floor = top + tallest * step
    towers = [
        {
            "name": tower,
            "x": x,
            "middle": x + 75,
            "top": floor - depth[tower] * step,
            "blocks": [
                {
                    "layer": layer,
                    "y": floor - (layer + 1) * step,
                    "entries": entries.get((tower, layer), 0),
                    "shade": -(-entries.get((tower, layer), 0) * SHADES // most),
                }
                for layer in reversed(range(depth[tower]))
            ],
        }
        for tower, x in (("vision", 5), ("text", 185))
    ]
    counts = {"layers": sum(depth.values()), "adapted": len(entries)}
    return {
        "towers": towers,
        "block": block,
        "text": min(12, block - 2),
        "floor": floor,
        "height": floor + 40,
        **counts,
    }


def stages(spent: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One bar laid out over as many rows as it has parts: each begins where the one above it ended."""
    seconds = [one["seconds"] for one in spent]
    whole = sum(seconds) or 1.0
    return [
        {"x": _percent(sum(seconds[:index]) / whole), "width": _percent(own / whole)}
        for index, own in enumerate(seconds)
    ]


def curve(records: Iterable[Mapping[str, Any]], key: str) -> dict[str, Any] | None:
    """A line through the known values of ``key`` in a square of 100 by 100; None when there is none.

    The upper edge is 1 for an accuracy and the largest value for a loss; the lower edge is 0.
    """
    known = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    if not known:
        return None
    stride = -(-len(known) // CURVE_POINTS)
    kept = [*known[:-1:stride], known[-1]]
    start, end = known[0][0], known[-1][0]
    highest = 1.0 if key == "support_accuracy" else max(value for _, value in known) or 1.0
    lowest = min(0.0, *(value for _, value in known))
    width, span = (end - start) or 1, (highest - lowest) or 1.0
    places = [f"{(step - start) / width * 100:.2f} {100 - (v - lowest) / span * 100:.2f}" for step, v in kept]
    # A line of no length draws nothing; a hair makes its round end visible.
    path = "M" + " L".join(places) + (" h0.01" if len(places) == 1 else "")
    edges = {"highest": highest, "lowest": lowest, "start": start, "end": end}
    return {"key": key, "path": path, "first": known[0][1], "last": known[-1][1], **edges}


def confusion(scores: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Cells of a confusion matrix with their share of the row, which sets how strong they are coloured."""
    return [
        [{"n": n, "right": i == j, "share": f"{n / max(1, sum(row)):.2f}"} for j, n in enumerate(row)]
        for i, row in enumerate(scores["confusion"])
    ]


def confused_pairs(scores: Mapping[str, Any], limit: int = 10) -> list[dict[str, Any]]:
    """The most frequent mistakes: true class, answer, how often, and the share of the class; ties in class order."""
    names = [row["class"] for row in scores["per_class"]]
    pairs = [
        {"true": names[i], "answer": names[j], "n": n, "share": n / sum(row)}
        for i, row in enumerate(scores["confusion"])
        for j, n in enumerate(row)
        if i != j and n
    ]
    return sorted(pairs, key=lambda pair: -pair["n"])[:limit]
