"""Placements compared: ranks, differences to the default, a recommendation, and what a cheap predictor knew of it.

A line is one training: one seed, one placement. What recommends is the loss on labelled pictures that a training held
out, never the accuracy on query pictures; what the recommendation is worth on these, ``choice_apart.py`` says.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from kusabi.evaluation.clusters import numbered
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.intervals import t_quantile

Line = Mapping[str, Any]

CHANCE = 0.05
"""That the default is left although no placement is better."""


def summary(
    placement: str, lines: Sequence[Line], default: Sequence[Line], files: Mapping[int, Sequence[str]],
    groups: Mapping[str, Hashable] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One placement over all seeds, and how it differs from the default.

    Args:
        placement: Its text.
        lines: Of this placement, one a seed, with ``accuracy``, ``log_loss``, ``support_loss``, ``right``, …
        default: Of the default placement, for the same seeds in the same order.
        files: Seed -> its query pictures in the order of ``right``.
        groups: Query picture -> its group; each is one by itself when absent.
    """

    def mean(key: str) -> float | None:
        values = [line[key] for line in lines]
        return None if None in values else float(np.mean(values))

    return {
        "placement": placement,
        "accuracy": mean("accuracy"),
        "accuracies": [line["accuracy"] for line in lines],
        "log_loss": mean("log_loss"),
        "support_loss": mean("support_loss"),
        "difference": against_default(lines, default, files, groups),
        "seconds": mean("seconds"),
        "entries": lines[0]["entries"],
        "layers_backward": lines[0]["layers_backward"],
    }


def against_default(
    lines: Sequence[Line], default: Sequence[Line], files: Mapping[int, Sequence[str]],
    groups: Mapping[str, Hashable] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """``compare`` on the query pictures of any seed; of the default's own lines it is known that they do not differ."""
    right, base, judged = aligned(lines, default, files)
    names = None if groups is None else numbered([groups[file] for file in _judged_by_any(lines, files)])
    found = compare(right, base, judged=judged, groups=names)
    same = all(line is other for line, other in zip(lines, default, strict=True))
    return found | {"interval": [0.0, 0.0]} if same else found


def aligned(
    lines: Sequence[Line], default: Sequence[Line], files: Mapping[int, Sequence[str]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Right and judged ``(seeds, n)`` of both sides over the query pictures of any seed."""
    columns = {file: i for i, file in enumerate(_judged_by_any(lines, files))}
    sides = np.zeros((3, len(lines), len(columns)), dtype=bool)
    for row, (line, other) in enumerate(zip(lines, default, strict=True)):
        at = [columns[file] for file in files[line["seed"]]]
        sides[0, row, at] = [mark == "1" for mark in line["right"]]
        sides[1, row, at] = [mark == "1" for mark in other["right"]]
        sides[2, row, at] = True
    return sides[0], sides[1], sides[2]


def _judged_by_any(lines: Sequence[Line], files: Mapping[int, Sequence[str]]) -> list[str]:
    """Query pictures of any seed, in the order of the columns of ``aligned``."""
    return list(dict.fromkeys(file for line in lines for file in files[line["seed"]]))


def recommend(
    lines: Mapping[str, Sequence[Line]],
    default: str,
    among: NDArray[np.bool_] | None = None,
    pictures: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """The placement to take, from the losses on held-out labelled pictures alone.

    The default is left only for placements whose mean loss is below its own by more than chance would give the best of
    so many (one-sided, O. Dunn, "Multiple comparisons among means" (1961), with paired differences and Student's t). Of
    these the one with the least mean loss and those within one standard error of it are not told apart, and the one
    that trains through the fewest layers is taken (L. Breiman et al., "Classification and Regression Trees" (1984),
    section 3.4.3).

    Args:
        lines: Placement -> its lines, one a seed, with ``support_losses`` of the same pictures in the same order.
        default: The placement to leave only for a reason.
        among: Which of the losses, laid end to end over the seeds, may be looked at; all when absent.
        pictures: What each of these losses is of. Losses of one picture, or one group, in several seeds are no
            independent evidence, and count as one. All are of different ones when absent.

    Returns:
        ``placement``, ``action`` (``keep`` or ``move``; ``unknown`` where nothing could be held out), ``support_gain``
        in nats against the default with ``support_error``, and ``tied``: those not told apart from the best.
    """
    losses = {name: held_out(of, among) for name, of in lines.items()}
    if losses[default] is None:
        return {"placement": default, "action": "unknown", "support_gain": None, "support_error": None, "tied": []}
    known = {name: loss for name, loss in losses.items() if loss is not None}
    seen = pictures if pictures is None or among is None else list(compress(pictures, among))
    of = _numbered(range(len(known[default])) if seen is None else seen)
    least = t_quantile(int(of.max()) + 1, 1 - 2 * CHANCE / max(len(known) - 1, 1))
    gains = {name: _paired(known[default], loss, of) for name, loss in known.items() if name != default}
    ahead = [name for name, (gain, error) in gains.items() if gain > max(least * error, 0.0)] or [default]
    best = min(ahead, key=lambda name: (float(known[name].mean()), name))
    behind = {name: _paired(known[name], known[best], of) for name in ahead}
    tied = [name for name, (gap, error) in behind.items() if gap <= error]
    cost = {name: (lines[name][0]["layers_backward"], float(known[name].mean()), name) for name in tied}
    taken = min(tied, key=lambda name: cost[name])
    gain, error = _paired(known[default], known[taken], of)
    return {
        "placement": taken,
        "action": "keep" if taken == default else "move",
        "support_gain": gain,
        "support_error": error,
        "tied": sorted(tied, key=lambda name: cost[name][1:]),
    }


def held_out(lines: Sequence[Line], among: NDArray[np.bool_] | None = None) -> NDArray[np.float64] | None:
    """Losses of the held-out labelled pictures of all seeds, laid end to end; None where there are none."""
    if any(line["support_losses"] is None for line in lines):
        return None
    losses = np.concatenate([np.asarray(line["support_losses"], dtype=np.float64) for line in lines])
    return losses if among is None else losses[among] if among.any() else None


def _numbered(pictures: Iterable[Hashable]) -> NDArray[np.int64]:
    """A number for each, from 0 on, equal for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(picture, len(numbers)) for picture in pictures])


def _paired(one: NDArray[np.float64], other: NDArray[np.float64], of: NDArray[np.int64]) -> tuple[float, float]:
    """Mean of a paired difference and its standard error, by how far the sums of whole pictures are off the mean."""
    difference = one - other
    mean, sums = float(difference.mean()), np.bincount(of, weights=difference - difference.mean())
    if len(sums) < 2:
        return mean, math.inf
    error = math.sqrt(float((sums**2).sum()) / (len(sums) - 1)) / math.sqrt(len(sums))
    return mean, error * len(sums) / len(difference)


def correlations(
    energies: Mapping[tuple[str, int], float], alone: Mapping[tuple[str, int], Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Spearman's rank correlation of the predictor with what one adapted layer alone brings.

    Args:
        energies: Tower and layer -> gradient energy per weight.
        alone: Tower and layer -> ``summary`` of the placement in that layer alone.

    Returns:
        Tower, and ``all`` -> ``n`` and the correlation with ``accuracy`` and with ``log_loss`` (turned, so that 1 is
        perfect); None where fewer than three layers or only equal values leave nothing to rank.
    """
    groups = {"all": list(alone)} | {
        tower: [p for p in alone if p[0] == tower] for tower in dict.fromkeys(t for t, _ in alone)
    }
    found = {}
    for name, places in groups.items():
        predicted = [energies[place] for place in places]
        found[name] = {
            "n": len(places),
            "accuracy": spearman(predicted, [alone[place]["accuracy"] for place in places]),
            "log_loss": spearman(predicted, [-alone[place]["log_loss"] for place in places]),
        }
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation with mean ranks for ties; None where it is not defined."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    found: Any = spearmanr(one, other)
    return float(found.statistic)
