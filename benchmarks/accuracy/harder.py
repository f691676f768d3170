"""Harder questions of the same tasks: corrupted query pictures, and classes that nobody labelled (base-to-new).

Base-to-new: the first half of the classes, in the order of their names, is trained on (the larger half where they are
odd); all pictures are asked. One scale for trained and new classes is ``kusabi.recipes.new_classes.joined``: the texts
say how likely any trained class is at all, and the method shares that among them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.corruptions import GRID, corrupted_query
from benchmarks.peers.answers import Answers
from kusabi.data.dataset import Example
from kusabi.recipes.question import Question, pose
from kusabi.recipes.watch import silent
from kusabi.spec import AdaptSpec

Variant = Literal["plain", "corrupted", "base_to_new", "published"]
CORRUPTED = 100  # query pictures that are corrupted, at most; each becomes twenty


def base_to_new(folder: Path, spec: AdaptSpec) -> tuple[Question, tuple[tuple[str, ...], ...]]:
    """The question of the first half of the classes, asked about the pictures of all; and the others' prompts."""
    whole = pose(str(folder), spec, device="cpu", threads=None, watch=silent)
    count = -(-len(whole.dataset.classes) // 2)
    support = tuple(example for example in whole.split.support if example.label < count)
    question = replace(
        whole, dataset=replace(whole.dataset, classes=whole.dataset.classes[:count]), prompts=whole.prompts[:count],
        split=replace(whole.split, support=support),
    )  # fmt: skip
    return question, whole.prompts[count:]


def corrupted_side(folder: Path, spec: AdaptSpec) -> Question:
    """The question whose query is corrupted; its data set reads support pictures as they are."""
    question = pose(str(folder), spec, device="cpu", threads=None, watch=silent)
    size = question.backbone.preprocessing.size
    shown, worse = corrupted_query(question.dataset, few(question.split.query, len(question.dataset.classes)), size)  # type: ignore[union-attr]
    clean = question.dataset.read

    def read(file: str) -> Any:
        return (shown.read if "#" in file else clean)(file)

    both = replace(question.dataset, read=read)
    return replace(question, dataset=both, split=replace(question.split, query=tuple(worse)))


def few(query: Sequence[Example], classes: int) -> list[Example]:
    """The first pictures of every class, equally many, at most ``CORRUPTED`` in all."""
    each = max(1, CORRUPTED // classes)
    return [one for label in range(classes) for one in [e for e in query if e.label == label][:each]]


def extras(variant: Variant, answers: Answers, labels: NDArray[np.int64], trained: int) -> dict[str, Any]:
    """What a line says beside the accuracy over everything that was asked.

    ``corruptions``: accuracy at every point of the grid. ``base``: of pictures of trained classes among these;
    ``new``: of the others among those; and their harmonic mean.

    Args:
        variant: Of the question.
        answers: Of ``m`` pictures, classes without pictures last.
        labels: ``(m,)``.
        trained: Classes with pictures.
    """
    chances = answers.probabilities
    if variant == "corrupted":
        right = (chances.argmax(axis=1) == labels).reshape(len(GRID), -1).mean(axis=1)
        return {
            "corruptions": {f"{kind} {severity}": float(r) for (kind, severity), r in zip(GRID, right, strict=True)}
        }
    if variant == "base_to_new":
        of_base = labels < trained
        base = float((chances[of_base, :trained].argmax(axis=1) == labels[of_base]).mean())
        new = float((chances[~of_base, trained:].argmax(axis=1) + trained == labels[~of_base]).mean())
        return {"base": base, "new": new, "harmonic_mean": 2 * base * new / (base + new) if base + new else 0.0}
    return {}
