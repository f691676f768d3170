"""What more labels buy: accuracy at several numbers of labels, its law, and answers to what is asked of it.

Stated rules:

- the law is believed when, fitted without the largest counts, it meets what was measured there (the interval of the
  miss holds zero), and when the points lie on it (chi-square, p of 0.01 or more);
- stop labelling: the upper end of the expected gain of doubling the labels is below what is worth the work; go on: its
  lower end is not; else it is open. Without a law that is believed, the last measured step stands in, and can only
  say stop: the step after it is expected to be smaller, but nobody knows by how much. Where every answer was right,
  what may still be wrong of other pictures is all that there can be to gain;
- a class is short of labels when its recall rose over the last measured step, with an interval (95 %, Bonferroni over
  the classes) above zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from kusabi.evaluation.clusters import Groups, among, share_interval
from kusabi.evaluation.few_disputed import widened
from kusabi.evaluation.intervals import LEVEL
from kusabi.evaluation.measured import Measured
from kusabi.evaluation.power_law import PARAMETERS, Laws, fit_laws
from kusabi.evaluation.resampling import interval, resampled_recalls

RESAMPLES = 2000
MISFIT = 0.01  # probability below which the points are not on the law
BAND_POINTS = 33


def learning_curve(measured: Measured, *, more: int, worth: float, seed: int = 0) -> dict[str, Any]:
    """The curve and all that follows from it, ready for JSON; shares, not per cent.

    Args:
        measured: What was answered.
        more: Further labels per class whose gain is asked for.
        worth: Gain in accuracy that doubling the labels is worth.
        seed: Of the resampling.

    Raises:
        DataError: When shapes do not match, or there are fewer than two draws or no pictures.
    """
    measured.check()
    recalls, accuracies = resampled_recalls(
        measured.right, measured.truth, len(measured.classes), seed=seed, resamples=RESAMPLES, groups=measured.groups
    )
    labels = np.asarray(measured.labels, dtype=np.float64)
    law = _law(measured, accuracies, labels, more)
    stop = {"threshold": worth, **_stop(measured, accuracies, law, worth)}
    return {
        "points": [_point(measured, accuracies, recalls, step) for step in range(len(labels))],
        **law,
        "stop": stop,
        **_classes(measured, recalls),
    }


def _point(
    measured: Measured, accuracies: NDArray[np.float64], recalls: NDArray[np.float64], step: int
) -> dict[str, Any]:
    of_draws = measured.right[step].mean(axis=1)
    value = float(of_draws.mean())
    return {
        "shots": measured.shots[step],
        "labels": float(measured.labels[step]),
        "accuracy": value,
        "interval": _joined(accuracies[:, step], value, measured.right[step], measured.groups),
        "spread": float(of_draws.std(ddof=1)),
        "lowest": float(of_draws.min()),
        "highest": float(of_draws.max()),
        "accuracies": of_draws.tolist(),
        "per_class": [
            {"class": name, "n": int((measured.truth == label).sum()), **_recall(measured, recalls, step, label)}
            for label, name in enumerate(measured.classes)
        ],
    }


def _recall(measured: Measured, recalls: NDArray[np.float64], step: int, label: int) -> dict[str, Any]:
    of_class = measured.right[step][:, measured.truth == label]
    if not of_class.size:
        return {"recall": None, "interval": None, "spread": None}
    of_draws = of_class.mean(axis=1)
    value = float(of_draws.mean())
    spread = float(of_draws.std(ddof=1))
    return {"recall": value, "interval": _between(measured, recalls, step, label), "spread": spread}


def _between(measured: Measured, recalls: NDArray[np.float64], step: int, label: int) -> list[float]:
    members = measured.truth == label
    right, groups = measured.right[step][:, members], among(measured.groups, members)
    return _joined(recalls[:, label, step], measured.recall(step, label), right, groups)


def _joined(
    resampled: NDArray[np.float64], value: float, right: NDArray[np.bool_], groups: Groups | None
) -> list[float]:
    """Of a share of right answers, ``right`` ``(draws, n)``: pictures that are all told alike resample to certainty."""
    low, high = interval(resampled, value)
    least, most = share_interval(value * right.shape[1], right.mean(axis=0), groups)
    return [min(low, least), max(high, most)]


def _weights(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One over the variance of each point: that of the draws, and that of the pictures."""
    of_draws, pictures = right.mean(axis=2), right.shape[2]
    error = 1 - of_draws.mean(axis=1)
    binomial = np.maximum(error * (1 - error), 0.5 / pictures) / pictures
    return 1 / (of_draws.var(axis=1, ddof=1) / right.shape[1] + binomial)


def _law(measured: Measured, accuracies: NDArray[np.float64], labels: NDArray[np.float64], more: int) -> dict[str, Any]:
    """The law, how it did on hidden points, and what it expects of more labels; or the reason why there is none."""
    nothing: dict[str, Any] = {"law": None, "validation": [], "gains": [], "band": []}
    if not measured.known_apart():
        return nothing | {"no_law": "one group"}
    errors = 1 - measured.right.mean(axis=(1, 2))
    if len(np.unique(labels)) < PARAMETERS:
        return nothing | {"no_law": "few points"}
    if errors.max() == 0:
        return nothing | {"no_law": "no errors"}
    weights = _weights(measured.right)
    law, laws = fit_laws(labels, errors, weights), fit_laws(labels, 1 - accuracies, weights)
    if law.size[0] == 0:
        return nothing | {"no_law": "not falling"}
    freedom = len(labels) - PARAMETERS
    on_it = float(chi2.sf(law.misfit[0], freedom)) if freedom else None
    validation = [
        _hidden(measured, accuracies, labels, weights, shown) for shown in range(len(labels) - 1, PARAMETERS - 1, -1)
    ]
    doubts = [] if validation else ["not validated"]
    doubts += ["missed"] if validation and not validation[0]["predictions"][-1]["covered"] else []
    doubts += ["misfit"] if on_it is not None and on_it < MISFIT else []
    last = float(labels[-1])
    asked = sorted({float(more), last})
    ends = np.geomspace(labels[0], max(4 * last, last + asked[-1]), BAND_POINTS)
    return {
        "law": {
            **{
                name: {"value": float(one[0]), "interval": interval(many, float(one[0]))}
                for name, one, many in (
                    ("floor", law.floor, laws.floor),
                    ("size", law.size, laws.size),
                    ("exponent", law.exponent, laws.exponent),
                )
            },
            "misfit_p": on_it,
            "doubts": doubts,
        },
        "no_law": None,
        "validation": validation,
        "gains": [_gain(law, laws, last, extra) for extra in asked],
        "band": [
            {"labels": float(at), "accuracy": float(1 - value), "interval": interval(1 - many, float(1 - value))}
            for at, value, many in zip(ends, law.errors(ends)[0], laws.errors(ends).T, strict=True)
        ],
    }


def _hidden(
    measured: Measured, accuracies: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64],
    shown: int,
) -> dict[str, Any]:  # fmt: skip
    """The law of the first ``shown`` points against the others; resampled together, since pictures are shared."""
    measured_accuracy = measured.right.mean(axis=(1, 2))
    law, laws = (
        fit_laws(labels[:shown], errors[..., :shown], weights[:shown]).errors(labels[shown:])
        for errors in (1 - measured_accuracy, 1 - accuracies)
    )
    predictions = []
    for step, value, many in zip(range(shown, len(labels)), 1 - law[0], (1 - laws).T, strict=True):
        miss = float(value - measured_accuracy[step])
        between = interval(many - accuracies[:, step], miss)
        predictions.append(
            {
                "shots": measured.shots[step], "predicted": float(value), "interval": interval(many, float(value)),
                "measured": float(measured_accuracy[step]), "miss": miss, "miss_interval": between,
                "covered": between[0] <= 0 <= between[1],
            }
        )  # fmt: skip
    return {"fitted_on": list(measured.shots[:shown]), "predictions": predictions}


def _gain(law: Laws, laws: Laws, last: float, extra: float) -> dict[str, Any]:
    ends = [last, last + extra]
    value, many = (float(one[0]) if len(one) == 1 else one for one in (_fall(law, ends), _fall(laws, ends)))
    assert isinstance(value, float)
    return {"more": round(extra), "labels": last + extra, "gain": value, "interval": interval(many, value)}


def _fall(laws: Laws, ends: Sequence[float]) -> NDArray[np.float64]:
    errors = laws.errors(ends)
    return errors[:, 0] - errors[:, 1]


def _stop(measured: Measured, accuracies: NDArray[np.float64], law: dict[str, Any], worth: float) -> dict[str, Any]:
    """Whether doubling the labels is worth it."""
    if law["no_law"] == "one group":
        return {"verdict": "open", "basis": "one group", "gain": None, "interval": None}
    if law["no_law"] == "no errors":
        most = 1 - _joined(accuracies[:, -1], 1.0, measured.right[-1], measured.groups)[0]
        verdict = "stop" if most < worth else "open"
        return {"verdict": verdict, "basis": "all right", "gain": 0.0, "interval": [0.0, most]}
    if law["law"] and not law["law"]["doubts"]:
        doubling = next(gain for gain in law["gains"] if gain["more"] == round(measured.labels[-1]))
        low, high = doubling["interval"]
        verdict = "stop" if high < worth else "go on" if low >= worth else "open"
        return {"verdict": verdict, "basis": "law", "gain": doubling["gain"], "interval": [low, high]}
    if len(measured.shots) < 2:
        return {"verdict": "open", "basis": "nothing", "gain": None, "interval": None}
    value = float(measured.right[-1].mean() - measured.right[-2].mean())
    between = interval(accuracies[:, -1] - accuracies[:, -2], value)
    low, high = widened(between, measured.gains(), groups=measured.groups)
    verdict = "stop" if high < worth and measured.labels[-1] >= 2 * measured.labels[-2] else "open"
    return {"verdict": verdict, "basis": "last step", "gain": value, "interval": [low, high]}


def _classes(measured: Measured, recalls: NDArray[np.float64]) -> dict[str, Any]:
    """Which classes are short of labels, most to gain first; and the class whose recall is least sure to be good."""
    judged = [label for label in range(len(measured.classes)) if (measured.truth == label).any()]
    lowest = {label: _between(measured, recalls, -1, label) for label in judged}
    weakest = min(judged, key=lambda label: lowest[label][0])
    short = []
    for label in filter(measured.known_apart, judged) if len(measured.shots) > 1 else ():
        gain = measured.recall(-1, label) - measured.recall(-2, label)
        level = 1 - (1 - LEVEL) / len(judged)
        between = interval(recalls[:, label, -1] - recalls[:, label, -2], gain, level)
        members = measured.truth == label
        between = widened(between, measured.gains(members), level, among(measured.groups, members))
        if between[0] > 0:
            named = {"class": measured.classes[label], "gain": gain, "interval": between}
            short.append(named | {"recall": measured.recall(-1, label)})
    return {
        "short_of_labels": sorted(short, key=lambda one: -one["gain"]),
        "weakest": {
            "class": measured.classes[weakest],
            "recall": measured.recall(-1, weakest),
            "interval": lowest[weakest],
        },
    }
