"""Scores become ``evaluation.json``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kusabi.adapters.checkpoint import CARD, WEIGHTS
from kusabi.data.dataset import Dataset, Example
from kusabi.data.folds import group_of
from kusabi.data.split import Folds, Split
from kusabi.evaluation.clusters import numbered
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import evaluate
from kusabi.evaluation.flips import flips
from kusabi.evaluation.pool import PEERS, WAYS
from kusabi.recipes.environment import environment, peak_memory
from kusabi.recipes.fit_support import Fitted, Prompts
from kusabi.recipes.question import Question
from kusabi.recipes.run_folder import ADAPTER, settings
from kusabi.recipes.training_log import read_records
from kusabi.spec import AdaptSpec

SCHEMA = 1


@dataclass(frozen=True)
class Scores:
    """Probabilities ``(n, C)`` of every way of answering, with files, ``group_names`` and labels; seconds a picture."""

    files: list[str]
    groups: list[str]
    labels: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    seconds: tuple[float, float | None]


def join(parts: Sequence[Scores]) -> Scores:
    """The folds of a cross-validation laid end to end."""
    return Scores(
        [file for part in parts for file in part.files],
        [group for part in parts for group in part.groups],
        np.concatenate([part.labels for part in parts]),
        {way: np.concatenate([part.scores[way] for part in parts]) for way in parts[0].scores},
        parts[0].seconds,
    )


def compared(scores: Scores, classes: Sequence[str], ways: Sequence[str] = WAYS) -> dict[str, Any]:
    """Every way of answering by itself, and, where there is an adapter, against zero-shot and the peers."""
    groups = numbered(scores.groups)
    answers = {way: scores.scores[way].argmax(axis=1) for way in ways}
    right = {way: answers[way] == scores.labels for way in ways}
    found: dict[str, Any] = {way: evaluate(scores.scores[way], scores.labels, classes, groups) for way in ways}
    peers = [peer for peer in PEERS if peer in ways]
    if "adapted" in ways:
        found["difference"] = compare(right["adapted"], right["zero_shot"], groups=groups)
        found["against_peers"] = {peer: compare(right["adapted"], right[peer], groups=groups) for peer in peers}
        found["flips"] = flips(answers["zero_shot"], answers["adapted"], scores.labels, scores.files, classes)
    if peers:
        found["best_peer"] = max(peers, key=lambda peer: found[peer]["accuracy"])
    found["pictures"] = [
        {"file": file, "label": int(scores.labels[i])}
        | ({} if group == file else {"group": group})
        | {way: int(answers[way][i]) for way in ways}
        for i, (file, group) in enumerate(zip(scores.files, scores.groups, strict=True))
    ]
    return found


def judging(split: Split | Folds) -> Sequence[Example]:
    """The pictures that judge, in the order in which they are answered where nothing is cross-validated."""
    return split.support if isinstance(split, Folds) else split.query


def grouped(examples: Sequence[Example]) -> dict[str, Any]:
    """``query_groups``, where groups were given: in how many the judging pictures come, each without one by itself.

    ``intervals_by`` says that intervals know of them; in files of older versions they do not.
    """
    if all(example.group is None for example in examples):
        return {}
    return {"query_groups": len({group_of(example) for example in examples}), "intervals_by": "groups"}


def group_names(dataset: Dataset, examples: Sequence[Example]) -> list[str]:
    """The group of every picture under another name, for those who read files and pages: a patient's may be secret.

    The same name in every run on the same pictures. A picture without a group has its own file's.
    """
    secret = dataset.digest if any(example.group is not None for example in examples) else ""
    return [
        example.file if example.group is None else sha256(f"{secret} {example.group}".encode()).hexdigest()[:16]
        for example in examples
    ]


def task(dataset: Dataset, split: Split | Folds, prompts: Prompts, spec: AdaptSpec, judged: int) -> dict[str, Any]:
    """What was asked of which pictures."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "prompts": [list(of_class) for of_class in prompts],
        "shots": spec.data.shots,
        "seed": spec.seed,
        "seeds": [spec.seed],
        "held_out": split.held_out,
        "support_pictures": len(split.support),
        "query_pictures": judged,
        **grouped(judging(split)),
        "notes": [*dataset.notes, *split.notes],
        "data_digest": dataset.digest,
    }


def asked_digest(spec: AdaptSpec) -> str:
    """Equal for two specs exactly when runs of them are seeds of one task, given equal pictures and an equal model.

    Left out are the seed, where the model lies, of which the evaluation holds the content's digest, and how often a
    checkpoint is written.
    """
    backbone = spec.backbone.model_copy(update={"backbone": "", "revision": None})
    training = spec.training.model_copy(update={"checkpoint_every": 1})
    return spec.model_copy(update={"seed": 0, "backbone": backbone, "training": training}).digest


def record(
    out: Path, question: Question, spec: AdaptSpec, fitted: Fitted, scores: Scores, device: str, command: str,
    total: float,
) -> dict[str, Any]:  # fmt: skip
    """The content of ``evaluation.json``."""
    weights = out / ADAPTER / WEIGHTS
    plan, head = fitted.plan, fitted.adapter.card["head"]
    entries = sum(map(len, fitted.adapter.parts))
    without, within = scores.seconds
    return {
        "schema": SCHEMA,
        "asked_digest": asked_digest(spec),
        "task": task(question.dataset, question.split, question.prompts, spec, len(scores.files)),
        **compared(scores, question.dataset.classes),
        "adapter": {
            "kind": spec.adapter.kind,
            "support_rule": spec.adapter.support_rule,
            "entries": entries,
            "targeted": plan.size,
            "density": entries / plan.size,
            "head": head["kind"],
            "blend": head.get("share"),
            "head_entries": sum(tensor.numel() for tensor in fitted.adapter.head.values()),
            "bytes": weights.stat().st_size,
            "digest": json.loads((out / ADAPTER / CARD).read_text())["digest"],
            "targets": fitted.adapter.card["targets"],
            **{key: fitted.adapter.card[key] for key in ("placement",) if key in fitted.adapter.card},
        },
        "training": settings(spec, device, question.precision, len(question.split.support))
        | {"records": read_records(out)},
        "cost": {
            "training_seconds": fitted.seconds,
            "total_seconds": total,
            "peak_memory_bytes": peak_memory(device),
            "images_per_second": {"zero_shot": 1 / without, "adapted": 1 / within if within else None},
        },
        "backbone": question.backbone.card(),
        "environment": environment(),
        "command": command,
        "cross_validated": isinstance(question.split, Folds),
    }
