"""Several runs of one task, which differ in their seed alone, become one evaluation of the same schema."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kusabi.errors import RunError
from kusabi.evaluation.clusters import Groups, among, numbered, share_interval
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import mean_of_known

WAYS = ("zero_shot", "class_mean", "linear_probe", "adapted")
PEERS = ("class_mean", "linear_probe")

_MEANS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "brier", "nll", "ece")


def task_key(evaluation: Mapping[str, Any]) -> str:
    """A text, equal for two runs exactly when only their seed differs: same data, prompts, backbone, pixels, request.

    Where groups are unequal a seed may leave too few pictures to hold any back: judged in another way, it is another.

    The request is known by its digest; files of older versions have none, and what they tell of it stands in. What a
    run chose for itself (placement, scale, entries) is the seed's doing and may differ.
    """
    task, adapter, training = evaluation["task"], evaluation["adapter"], evaluation["training"]
    backbone, asked = evaluation["backbone"], evaluation.get("asked_digest")
    parts = [task.get(key) for key in ("name", "classes", "prompts", "shots", "held_out", "data_digest")]
    parts += [backbone.get(key) for key in ("digest", "preprocessing")]
    parts += [asked, training.get("precision")]
    if asked is None:
        parts += [adapter.get(key) for key in ("kind", "support_rule", "entries", "head", "head_entries")]
        parts += [training.get(key) for key in ("steps", "learning_rate", "batch_size", "views", "augment")]
    return json.dumps(parts, sort_keys=True)


def pool(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One evaluation out of one per seed; a single one is returned as it is.

    Numbers are means over seeds, confusion matrices are sums, ``n`` and the intervals count pictures (never pictures
    times seeds). Each of the four ways of answering gains ``accuracies`` (one a seed) and ``spread`` (their standard
    deviation). ``pictures`` hold a list of answers, one a seed, None where that seed learned from the picture. A
    picture is fixed when most seeds were wrong before and most are right after, and broken the other way round.

    Raises:
        RunError: When there is none, when one is pooled already, when tasks differ, or when a seed comes twice.
    """
    if not evaluations:
        raise RunError("no evaluation to pool; name at least one finished run")
    if len(evaluations) == 1:
        return copy.deepcopy(dict(evaluations[0]))
    _check(evaluations)
    runs = sorted(evaluations, key=lambda run: run["task"]["seed"])
    first = runs[0]
    files = sorted({picture["file"] for run in runs for picture in run["pictures"]})
    labels = {picture["file"]: picture["label"] for run in runs for picture in run["pictures"]}
    truth = np.array([labels[file] for file in files])
    answers = {way: _answers(runs, files, way) for way in WAYS}
    judged = answers["adapted"] >= 0
    right = {way: answers[way] == truth for way in WAYS}
    names = {picture["file"]: picture.get("group", picture["file"]) for run in runs for picture in run["pictures"]}
    groups = numbered([names[file] for file in files])
    pooled = copy.deepcopy(dict(first))
    pooled["task"]["seeds"] = [run["task"]["seed"] for run in runs]
    pooled["task"] |= {"query_pictures": len(files)} | (
        {"query_groups": len(set(names.values()))} if "query_groups" in first["task"] else {}
    )
    pooled["task"]["notes"] = list(dict.fromkeys(note for run in runs for note in run["task"].get("notes", [])))
    for way in WAYS:
        each = (right[way] & judged).sum(axis=0) / judged.sum(axis=0)
        pooled[way] = _mean_of([run[way] for run in runs], truth, each, groups)
    pooled["difference"] = compare(right["adapted"], right["zero_shot"], judged=judged, groups=groups)
    pooled["against_peers"] = {
        peer: compare(right["adapted"], right[peer], judged=judged, groups=groups) for peer in PEERS
    }
    pooled["best_peer"] = max(PEERS, key=lambda peer: pooled[peer]["accuracy"])
    pooled["pictures"] = [
        {"file": file, "label": int(truth[i])}
        | ({} if names[file] == file else {"group": names[file]})
        | {way: [int(a) if a >= 0 else None for a in answers[way][:, i]] for way in WAYS}
        for i, file in enumerate(files)
    ]
    pooled["flips"] = _majority_flips(answers["zero_shot"], answers["adapted"], truth, files, first["task"]["classes"])
    pooled["adapter"] |= {"digests": [run["adapter"].get("digest") for run in runs]}
    pooled["training"]["records"] = _mean_records([run["training"].get("records", []) for run in runs])
    pooled["cost"] = _mean_cost([run["cost"] for run in runs])
    pooled["commands"] = [run.get("command") for run in runs]
    return pooled


def _check(evaluations: Sequence[Mapping[str, Any]]) -> None:
    if any(len(run["task"].get("seeds", [])) > 1 for run in evaluations):
        raise RunError("one of the evaluations is pooled already; pool the single runs instead")
    if len({task_key(run) for run in evaluations}) > 1:
        if len({task_key({**run, "task": {**run["task"], "held_out": ""}}) for run in evaluations}) == 1:
            ways = ", ".join(f"seed {run['task']['seed']}: {run['task'].get('held_out')}" for run in evaluations)
            raise RunError(f"the seeds were judged in other ways ({ways}); pool them apart, or give a test folder")
        raise RunError("the runs differ in more than their seed (data, prompts, backbone or settings); pool them apart")
    seeds = [run["task"]["seed"] for run in evaluations]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"seeds {seeds}: the same seed comes twice; each run counts once")


def _answers(runs: Sequence[Mapping[str, Any]], files: Sequence[str], way: str) -> NDArray[np.int64]:
    """Answers, shape ``(seeds, files)``; -1 where a seed did not judge the picture."""
    found = [{picture["file"]: picture[way] for picture in run["pictures"]} for run in runs]
    return np.array([[answers.get(file, -1) for file in files] for answers in found])


def _mean_of(
    scores: Sequence[Mapping[str, Any]], truth: NDArray[np.int64], right: NDArray[np.float64], groups: Groups | None
) -> dict[str, Any]:
    """Means over seeds; ``right`` ``(n,)`` are the shares of seeds that answered each picture rightly."""
    pooled: dict[str, Any] = {key: mean_of_known([one[key] for one in scores]) for key in _MEANS}
    accuracies, n = [one["accuracy"] for one in scores], len(truth)
    # Sums in another order may leave a mean a hair above 1.
    pooled["interval"] = share_interval(min(float(np.mean(accuracies)), 1.0) * n, right, groups)
    pooled["n"] = n
    recalls = [one["recall_at_false_alarm"]["recall"] for one in scores]
    pooled["recall_at_false_alarm"] = {
        "rate": scores[0]["recall_at_false_alarm"]["rate"],
        "recall": mean_of_known(recalls),
    }
    pooled["per_class"] = [
        _mean_class([one["per_class"][index] for one in scores], right[truth == index], among(groups, truth == index))
        for index in range(len(scores[0]["per_class"]))
    ]
    pooled["confusion"] = np.sum([one["confusion"] for one in scores], axis=0).tolist()
    pooled["accuracies"] = accuracies
    pooled["spread"] = float(np.std(accuracies, ddof=1))
    return pooled


def _mean_class(rows: Sequence[Mapping[str, Any]], right: NDArray[np.float64], groups: Groups | None) -> dict[str, Any]:
    recall, n = mean_of_known([row["recall"] for row in rows]), len(right)
    return {
        "class": rows[0]["class"],
        "n": n,
        "recall": recall,
        "interval": None if recall is None else share_interval(min(recall, 1.0) * n, right, groups),
        "precision": mean_of_known([row["precision"] for row in rows]),
        "f1": mean_of_known([row["f1"] for row in rows]),
    }


def _majority_flips(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    truth: NDArray[np.int64],
    files: Sequence[str],
    classes: Sequence[str],
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"fixed": [], "broken": []}
    for i, (file, label) in enumerate(zip(files, truth, strict=True)):
        old, new = (_majority(side[:, i], int(label), len(classes)) for side in (before, after))
        if (old == label) != (new == label):
            names = {"file": file, "label": classes[label], "before": classes[old], "after": classes[new]}
            found["fixed" if new == label else "broken"].append(names)
    return found


def _majority(answers: NDArray[np.int64], label: int, classes: int) -> int:
    """The label when more than half of the seeds give it, else their most frequent wrong answer."""
    votes = np.bincount(answers[answers >= 0], minlength=classes)
    if 2 * votes[label] > votes.sum():
        return label
    votes[label] = -1
    return int(votes.argmax())


def _mean_records(records: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    steps = [[record["step"] for record in run] for run in records]
    if any(one != steps[0] for one in steps):
        return [dict(record) for record in records[0]]
    return [
        {"step": same[0]["step"]}
        | {key: mean_of_known([record.get(key) for record in same]) for key in ("loss", "support_accuracy")}
        for same in zip(*records, strict=True)
    ]


def _mean_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    peaks = [cost.get("peak_memory_bytes") for cost in costs]
    known = [peak for peak in peaks if peak is not None]
    speeds = [cost.get("images_per_second") or {} for cost in costs]
    return {
        "training_seconds": mean_of_known([cost.get("training_seconds") for cost in costs]),
        "total_seconds": mean_of_known([cost.get("total_seconds") for cost in costs]),
        "peak_memory_bytes": max(known) if known else None,
        "images_per_second": {
            way: mean_of_known([speed.get(way) for speed in speeds]) for way in ("zero_shot", "adapted")
        },
    }
