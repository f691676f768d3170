"""What a learning curve says, in sentences: for the terminal and for the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kusabi.report import numbers
from kusabi.report.grouped import remarks_on_groups
from kusabi.report.words import Words


@dataclass(frozen=True)
class CurveAnswers:
    """``stop`` answers whether to go on labelling; ``others`` the rest, in the order in which they are asked."""

    stop: str
    others: tuple[str, ...]


def answers(found: Mapping[str, Any], words: Words) -> CurveAnswers:
    """Sentences about the adapter of a curve, from the content of ``curve.json``."""
    of = found["methods"]["adapted"]
    others = [_stability(found, of, words), *_law(of, words), *_classes(of, words)]
    others += remarks_on_groups(found["task"], words)
    return CurveAnswers(_stop(of, words), tuple(others))


def _stop(of: Mapping[str, Any], words: Words) -> str:
    stop = of["stop"]
    if stop["interval"] is None:
        return words(f"curve.stop_{_key(stop['basis'])}")
    return words(
        f"curve.{_key(stop['verdict'])}_{_key(stop['basis'])}",
        points=numbers.points(words, stop["gain"]),
        range=numbers.points_range(words, stop["interval"]),
        worth=numbers.size_in_points(words, stop["threshold"]),
    )


def _stability(found: Mapping[str, Any], of: Mapping[str, Any], words: Words) -> str:
    last = of["points"][-1]
    return words(
        "curve.stability",
        shots=numbers.count(words, last["shots"]),
        accuracy=numbers.percent(words, last["accuracy"]),
        range=numbers.accuracy_range(words, last["interval"]),
        draws=found["asked"]["draws"],
        spread=numbers.size_in_points(words, last["spread"]),
        extent=numbers.accuracy_range(words, [last["lowest"], last["highest"]]),
    )


def _law(of: Mapping[str, Any], words: Words) -> list[str]:
    if of["law"] is None:
        return [words(f"curve.no_law_{_key(of['no_law'])}")]
    said = [
        words(
            "curve.gain",
            more=numbers.count(words, gain["more"]),
            points=numbers.points(words, gain["gain"]),
            range=numbers.points_range(words, gain["interval"]),
        )
        for gain in of["gains"]
    ]
    for checked in of["validation"]:
        last = checked["predictions"][-1]
        said.append(
            words(
                "curve.covered" if last["covered"] else "curve.missed",
                shown=numbers.count(words, checked["fitted_on"][-1]),
                shots=numbers.count(words, last["shots"]),
                predicted=numbers.percent(words, last["predicted"]),
                measured=numbers.percent(words, last["measured"]),
                miss=numbers.points(words, last["miss"]),
                range=numbers.points_range(words, last["miss_interval"]),
            )
        )
    return said + [words(f"curve.doubt_{_key(doubt)}") for doubt in of["law"]["doubts"]]


def _classes(of: Mapping[str, Any], words: Words) -> list[str]:
    one = of["weakest"]
    weakest = words(
        "curve.weakest",
        name=one["class"],
        recall=numbers.percent(words, one["recall"]),
        range=numbers.accuracy_range(words, one["interval"]),
    )
    if not of["short_of_labels"]:
        return [words("curve.none_short"), weakest]
    named = [
        words("curve.short_class", name=short["class"], points=numbers.points(words, short["gain"]),
              range=numbers.points_range(words, short["interval"]))
        for short in of["short_of_labels"]
    ]  # fmt: skip
    return [words("curve.short", names=words("number.joint").join(named)), weakest]


def _key(value: str) -> str:
    return value.replace(" ", "_")
