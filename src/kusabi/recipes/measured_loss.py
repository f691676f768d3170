"""What composing cost: every adapter alone against the composed one, on labelled pictures of its own task."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kusabi.adapters.checkpoint import Adapter
from kusabi.backbones.backbone import Backbone
from kusabi.data.folds import group_of
from kusabi.data.source import read_dataset
from kusabi.data.split import judged_of
from kusabi.evaluation.clusters import Groups, numbered
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import evaluate
from kusabi.recipes.evaluation_record import grouped
from kusabi.recipes.judge import judge
from kusabi.recipes.stored_adapter import check_classes, learned_from
from kusabi.recipes.watch import Watch, stage

SHOWN = ("accuracy", "interval", "balanced_accuracy", "nll", "n")


def measured_loss(
    backbone: Backbone, adapters: Sequence[Adapter], labels: Sequence[str], composed: Adapter, folders: Sequence[str],
    *, label_column: str, group_column: str | None, skip_unreadable: bool, watch: Watch,
) -> list[dict[str, Any]]:  # fmt: skip
    """Accuracy alone and composed on one folder for each adapter, and the paired difference with its interval.

    Composed, all classes of all adapters compete. Where these are more than the adapter's own, ``composed_among_own``
    says how it answers when only the adapter's own classes may win: the rest of the loss is classes in each other's
    way, not weights.

    Args:
        backbone: What the adapters were made for.
        adapters: As stored.
        labels: One for each.
        composed: As it would be stored.
        folders: A labelled folder for each adapter; the test split where it has one, else all pictures; copies judge
            once, and pictures under two labels not at all.
        label_column: Column of the metadata file that holds the class.
        group_column: Column whose groups intervals count; pictures when absent.
        skip_unreadable: Leave unreadable pictures out.
        watch: Told about progress.

    Raises:
        DataError: If a folder cannot be read, or has classes that its adapter does not know.
    """
    sides = []
    for adapter, folder in zip(adapters, folders, strict=True):
        dataset = read_dataset(
            folder, label_column=label_column, group_column=group_column, skip_unreadable=skip_unreadable,
            least_classes=1, progress=stage(watch, "pictures read"),
        )  # fmt: skip
        check_classes(dataset, adapter.card["classes"])
        sides.append((dataset, *judged_of(dataset)))
    found = []
    for adapter, label, (dataset, query, notes) in zip(adapters, labels, sides, strict=True):
        own, union = adapter.card["classes"], composed.card["classes"]
        groups = numbered([group_of(example) for example in query])
        answers = judge(backbone, dataset, query, adapter.card["prompts"], [adapter, composed], watch)
        names = [dataset.classes[example.label] for example in query]
        truth, truth_in_union = (np.array([row.index(name) for name in names]) for row in (own, union))
        alone, together = answers.adapted
        right = together.argmax(axis=1) == truth_in_union
        one = {
            "adapter": label,
            "data": dataset.name,
            "data_digest": dataset.digest,
            "learned_from": learned_from(dataset, query, adapter),
            **({"notes": list(notes)} if notes else {}),
            **grouped(query),
            "zero_shot": _numbers(answers.zero_shot, truth, own, groups),
            "alone": _numbers(alone, truth, own, groups),
            "composed": _numbers(together, truth_in_union, union, groups),
            "difference": compare(right, alone.argmax(axis=1) == truth, groups=groups),
        }
        if len(union) > len(own):
            among = together[:, [union.index(name) for name in own]]
            hits = among.argmax(axis=1) == truth
            one["composed_among_own"] = {"accuracy": float(hits.mean()), "n": len(hits)}
        found.append(one)
    return found


def _numbers(
    scores: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str], groups: Groups | None
) -> dict[str, Any]:
    evaluation = evaluate(scores, labels, classes, groups)
    return {key: evaluation[key] for key in SHOWN}
