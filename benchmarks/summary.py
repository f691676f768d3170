"""What is kept of the evaluations of one task at one number of shots."""

from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.evaluation.pool import WAYS, pool


def summary(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain data: every seed by itself, and all of them pooled.

    Args:
        evaluations: Contents of ``evaluation.json``, which differ in their seed alone.
    """
    pooled = pool(evaluations)
    peer = pooled["best_peer"]
    return {
        "shots": pooled["task"]["shots"],
        "seeds": pooled["task"]["seeds"],
        "n": pooled["adapted"]["n"],
        "ways": {way: _way(pooled[way]) for way in WAYS},
        "best_peer": peer,
        "difference": pooled["difference"],
        "against_best_peer": pooled["against_peers"][peer],
        "adapter": {key: pooled["adapter"][key] for key in ("entries", "targeted", "head_entries", "bytes")},
        "cost": pooled["cost"],
        "runs": [_run(one) for one in evaluations],
    }


def _way(pooled: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: pooled[key] for key in ("accuracy", "interval", "balanced_accuracy", "macro_f1", "nll")}
    return kept | {"accuracies": pooled.get("accuracies", [pooled["accuracy"]])}


def _run(one: Mapping[str, Any]) -> dict[str, Any]:
    peer = one["best_peer"]
    return {
        "seed": one["task"]["seed"],
        "n": one["adapted"]["n"],
        "accuracy": {way: one[way]["accuracy"] for way in WAYS},
        "difference": one["difference"]["value"],
        "best_peer": peer,
        "against_best_peer": one["against_peers"][peer]["value"],
        "training_seconds": one["cost"]["training_seconds"],
        "total_seconds": one["cost"]["total_seconds"],
        "entries": one["adapter"]["entries"],
        "bytes": one["adapter"]["bytes"],
        "blend": one["adapter"]["blend"],
    }
