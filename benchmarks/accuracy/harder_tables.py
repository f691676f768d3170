"""Pages of the harder questions and of the papers' schedules. A number takes every run; what is missing is named."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks.accuracy.corruptions import GRID, STRENGTHS
from benchmarks.accuracy.results import Key
from benchmarks.accuracy.summary import Lines
from benchmarks.main_job_block import table

Line = Mapping[str, Any]


def page_corrupted(
    lines: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> str:
    """Mean accuracy by kind of corruption and by severity, over tasks and seeds."""
    parts = ["# Accuracy on corrupted query pictures", _lead(lines, titles, tasks, shots, seeds)]
    for n in shots:
        values = {}
        for method, of in _whole(lines, tasks, [n], seeds).items():
            at = {point: _mean(of, tasks, n, seeds, _at(*point)) for point in GRID}
            kinds = [np.mean([at[kind, severity] for severity in range(1, 6)]) for kind in STRENGTHS]
            severities = [np.mean([at[kind, severity] for kind in STRENGTHS]) for severity in range(1, 6)]
            values[method] = [float(np.mean(kinds)), *map(float, (*kinds, *severities))]
        head = ["method", "mean", *STRENGTHS, *(f"severity {severity}" for severity in range(1, 6))]
        parts += [f"## {n} shots", _ranked(values, titles, head)]
    return "\n\n".join(parts) + "\n"


def page_new(
    lines: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> str:
    """Base, new, their harmonic mean, and all pictures among all classes; then the harmonic mean task by task."""
    parts = [
        "# Accuracy from base to new classes", _lead(lines, titles, tasks, shots, seeds),
        "Base: pictures of trained classes among these. New: pictures of the other classes among those. All: all "
        "pictures among all classes; the texts say how likely any trained class is at all, and the method shares that "
        "among them. Texts are compared with a method's own features; with ours, where it has a classifier of its own, "
        "at half the values, as `kusabi predict --also` does, chosen on development tasks (`new_classes.md`). Means "
        "are over tasks and seeds; the harmonic mean is taken in each run.",
    ]  # fmt: skip
    for n in shots:
        values = {}
        for method, of in _whole(lines, tasks, [n], seeds).items():
            fields = [_mean(of, tasks, n, seeds, _field(f)) for f in ("harmonic_mean", "base", "new", "accuracy")]
            by_task = [_mean(of, [task], n, seeds, _field("harmonic_mean")) for task in tasks]
            values[method] = [*fields, *by_task]
        parts += [f"## {n} shots", _ranked(values, titles, ["method", "harmonic mean", "base", "new", "all", *tasks])]
    return "\n\n".join(parts) + "\n"


def page_published(
    long: Lines, short: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int],
    seeds: Sequence[int], ours: str = "kusabi",
) -> str:  # fmt: skip
    """Methods on the schedules of their papers beside the same cells at the updates that all share, and ours there.

    Args:
        long: By the papers.
        short: Of the stage that all methods share.
        titles: Of the methods.
        tasks: Of the page.
        shots: Likewise.
        seeds: Likewise.
        ours: The method without a paper's schedule.
    """
    rows = []
    for method, task, n, seed in product(long, tasks, shots, seeds):
        one, other = long[method].get((task, n, seed)), short.get(method, {}).get((task, n, seed))
        if one and other:
            more, less = one["accuracy"], other["accuracy"]
            rows.append([titles[method], task, str(n), str(seed), f"{other['steps']:,}", _percent(less),
                         f"{one['steps']:,}", _percent(more), f"{100 * (more - less):+.1f}",
                         f"{one['seconds'] / other['seconds']:.0f} ×"])  # fmt: skip
    for task, n, seed in product(tasks, shots, seeds):
        if one := short.get(ours, {}).get((task, n, seed)):
            rows.append([f"**{titles[ours]}**", task, str(n), str(seed), f"{one['steps']:,}", _percent(one["accuracy"]),
                         *4 * ["–"]])  # fmt: skip
    head = ["method", "task", "shots", "seed", "updates", "accuracy", "of the paper", "accuracy", "points", "time"]
    lead = (
        "All methods share a number of updates. Is that unfair to those whose papers give them thousands? These ran on "
        "their paper's schedule and step size, too, in the same cells; points: what the longer schedule bought."
    )
    return "\n\n".join(["# The schedules of the papers", _lead(long, titles, tasks, shots, seeds), lead,
                         table(head, rows)]) + "\n"  # fmt: skip


def _lead(
    lines: Lines, titles: Mapping[str, str], tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> str:
    wanted = len(tasks) * len(shots) * len(seeds)
    keys = set(product(tasks, shots, seeds))
    partial = [f"{titles[m]} ({len(keys & of.keys())} of {wanted})" for m, of in lines.items() if keys - of.keys()]
    missing = f" Runs are missing of: {', '.join(partial)}." if partial else ""
    named = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    return f"Tasks: {', '.join(tasks)}; {named}.{missing}"


def _whole(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> Lines:
    keys = set(product(tasks, shots, seeds))
    return {method: of for method, of in lines.items() if keys <= of.keys()}


def _at(kind: str, severity: int) -> Callable[[Line], float]:
    return lambda line: line["corruptions"][f"{kind} {severity}"]


def _field(name: str) -> Callable[[Line], float]:
    return lambda line: line[name]


def _mean(
    of: Mapping[Key, Line], tasks: Sequence[str], shots: int, seeds: Sequence[int], value: Callable[[Line], float]
) -> float:
    return float(np.mean([[value(of[task, shots, seed]) for seed in seeds] for task in tasks]))


def _ranked(values: Mapping[str, Sequence[float]], titles: Mapping[str, str], head: Sequence[str]) -> str:
    """Best first by the first number."""
    if not values:
        return "No method has every run."
    order = sorted(values, key=lambda method: -values[method][0])
    return table(head, [[titles[method], *map(_percent, values[method])] for method in order])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
