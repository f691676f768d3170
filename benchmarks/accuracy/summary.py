"""What the lines say together: means over tasks of complete rows, differences to peers with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.accuracy.results import Key, right
from benchmarks.development import DEVELOPMENT
from kusabi.evaluation.comparison import compare

Lines = Mapping[str, Mapping[Key, Mapping[str, Any]]]  # method -> cell -> line

OURS = "kusabi"


@dataclass(frozen=True)
class Difference:
    """Ours minus a peer, mean over tasks, in points, with its 95 % interval."""

    value: float
    low: float
    high: float


def headline(tasks: Sequence[str]) -> list[str]:
    """Tasks that no default was chosen on."""
    return [task for task in tasks if task not in DEVELOPMENT]


def cell_mean(
    lines: Mapping[Key, Mapping[str, Any]], task: str, shots: int, seeds: Sequence[int], what: str = "accuracy"
) -> float | None:
    """Mean of a field over seeds; None where one was not measured."""
    found = [lines.get((task, shots, seed)) for seed in seeds]
    return None if None in found else float(np.mean([line[what] for line in found if line]))


def mean_over(
    lines: Mapping[Key, Mapping[str, Any]], tasks: Sequence[str], shots: int, seeds: Sequence[int],
    what: str = "accuracy",
) -> float | None:  # fmt: skip
    """Mean of a field over tasks; None where one is missing."""
    means = [cell_mean(lines, task, shots, seeds, what) for task in tasks]
    return None if not means or None in means else float(np.mean([mean for mean in means if mean is not None]))


def difference(
    ours: Mapping[Key, Mapping[str, Any]], peer: Mapping[Key, Mapping[str, Any]], tasks: Sequence[str], shots: int,
    seeds: Sequence[int],
) -> Difference | None:  # fmt: skip
    """Ours minus a peer on the same pictures, in points; None where cells are missing.

    Of one task the paired bootstrap over pictures and seeds; tasks are independent of each other and are no sample of
    tasks: their intervals add in quadrature.
    """
    found = []
    for task in tasks:
        cells = [(ours.get((task, shots, seed)), peer.get((task, shots, seed))) for seed in seeds]
        if not all(a and b for a, b in cells):
            return None
        found.append(compare([right(a) for a, _ in cells if a], [right(b) for _, b in cells if b]))
    if not found:
        return None
    value = 100 * float(np.mean([one["value"] for one in found]))
    below, above = (
        100 * float(np.sqrt(sum((one["value"] - one["interval"][side]) ** 2 for one in found))) / len(found)
        for side in (0, 1)
    )
    return Difference(value, value - below, value + above)


def best_peer(lines: Lines, tasks: Sequence[str], shots: int, seeds: Sequence[int]) -> str | None:
    """The most accurate of all other people's methods on exactly these tasks: chosen with hindsight, in its favour."""
    means = {
        method: mean
        for method, of in lines.items()
        if not method.startswith(OURS) and (mean := mean_over(of, tasks, shots, seeds)) is not None
    }
    return max(means, key=lambda method: means[method]) if means else None


def worst_against_zero_shot(lines: Lines, method: str, seeds: Sequence[int]) -> tuple[float, str, int] | None:
    """The lowest mean difference to zero-shot over tasks and shots, in points, and where it is."""
    cells = {(task, shots) for task, shots, _ in lines[method]}
    found = []
    for task, shots in sorted(cells):
        own, zero = (cell_mean(lines.get(name, {}), task, shots, seeds) for name in (method, "zero_shot"))
        if own is not None and zero is not None:
            found.append((100 * (own - zero), task, shots))
    return min(found) if found else None


def leading_peers(
    lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int], count: int
) -> tuple[list[str], list[str]]:
    """The most accurate methods of other people on some tasks, and those that lack a run there.

    Zero-shot is no peer here, and methods with our prototypes are none. Ties go by name.
    """
    named = sorted(method for method in lines if "+" not in method and method != "zero_shot")
    means = {method: [mean_over(lines[method], tasks, n, seeds) for n in shots] for method in named}
    lacking = [method for method in named if None in means[method]]
    whole = [method for method in named if method not in lacking]
    return sorted(whole, key=lambda method: -sum(mean or 0 for mean in means[method]))[:count], lacking
