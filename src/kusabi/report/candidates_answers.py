"""What a comparison of models says, in sentences: for the terminal and for the page."""

from collections.abc import Mapping
from typing import Any

from kusabi.report import numbers
from kusabi.report.grouped import remarks_on_groups
from kusabi.report.words import Words


def answers(found: Mapping[str, Any], words: Words) -> tuple[str, ...]:
    """Which model to take comes first, from the content of ``comparison.json``; then what qualifies it."""
    rows = {row["name"]: row for row in found["candidates"]}
    failed = [
        words("choice.failed", name=name, reason=row["error"].removeprefix(f"{name}: "))
        for name, row in rows.items()
        if row["error"]
    ]
    advice = found["recommendation"]
    best, measured = rows[advice["best"]], len(advice["against"]) + 1
    said = [_take(found, best, measured, words)]
    if advice["action"] == "take" and measured > 1:
        said += _others(advice, rows, words)
    said += [_licence(name, rows[name], words) for name in dict.fromkeys((advice["best"], advice["smallest"]))]
    if measured > 1:
        said.append(words("choice.hindsight"))
    said += remarks_on_groups(found["task"], words)
    return (*said, *failed)


def _take(found: Mapping[str, Any], best: Mapping[str, Any], measured: int, words: Words) -> str:
    way, action = found["judged_by"], found["recommendation"]["action"]
    key = "none" if action == "none" else "take" if measured > 1 else "only"
    return words(
        f"choice.{key}",
        name=best["name"],
        how=words(f"choice.with_{way}"),
        accuracy=numbers.percent(words, best[way]["accuracy"]),
        range=numbers.accuracy_range(words, best[way]["interval"]),
        n=measured,
        guess=numbers.percent(words, 1 / len(found["task"]["classes"])),
    )


def _others(advice: Mapping[str, Any], rows: Mapping[str, Any], words: Words) -> list[str]:
    if not advice["level"]:
        behind = [_against(name, advice, words) for name in advice["against"]]
        return [words("choice.behind", names=words("number.joint").join(behind))]
    level = [_against(name, advice, words) for name in advice["level"]]
    said = [words("choice.level", names=words("number.joint").join(level))]
    best, smallest = advice["best"], advice["smallest"]
    if rows[smallest]["backbone"]["parameters"] < rows[best]["backbone"]["parameters"]:
        counts = {key: numbers.count(words, rows[name]["backbone"]["parameters"])
                  for key, name in (("parameters", smallest), ("others", best))}  # fmt: skip
        said.append(words("choice.smallest", name=smallest, best=best, **counts))
    for name in advice["faster"]:
        speeds = {key: numbers.speed(words, rows[of]["speed"]["pictures_per_second"])
                  for key, of in (("speed", name), ("others", best))}  # fmt: skip
        said.append(words("choice.faster", name=name, best=best, **speeds))
    return said


def _against(name: str, advice: Mapping[str, Any], words: Words) -> str:
    one = advice["against"][name]
    points, interval = numbers.points(words, one["value"]), numbers.points_range(words, one["interval"])
    return words("choice.against_one", name=name, points=points, range=interval)


def _licence(name: str, row: Mapping[str, Any], words: Words) -> str:
    licence = row["licence"]
    if licence["name"] is None:
        return words("choice.licence_unknown", name=name, note=licence["note"])
    said = words("choice.licence", name=name, licence=licence["name"], where=licence["where"])
    return f"{said} {words('choice.licence_note', note=licence['note'])}" if licence["note"] else said
