"""One candidate for the backbone: what it answers with and without a quick adapter, what it costs, whose licence."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.backbones.digest import module_digest
from kusabi.backbones.licence import read_licence
from kusabi.backbones.model_folder import locate
from kusabi.backbones.weights import weight_files
from kusabi.data.dataset import Dataset
from kusabi.data.split import Folds, Split
from kusabi.recipes.adapt import fit_one, judge_one, judged
from kusabi.recipes.baseline import WAYS as FROZEN
from kusabi.recipes.baseline import frozen_scores
from kusabi.recipes.evaluation_record import Scores, compared, join
from kusabi.recipes.question import Question, open_backbone, pose_on
from kusabi.recipes.run_folder import settings
from kusabi.recipes.tower_speed import BATCH, tower_speed
from kusabi.recipes.watch import Watch
from kusabi.spec import AdaptSpec


def candidate(dataset: Dataset, spec: AdaptSpec, device: str, *, adapter: bool, watch: Watch) -> dict[str, Any]:
    """Measure one model on pictures that are read already. Nothing of it is kept in memory.

    Args:
        dataset: The pictures; their split follows from the spec alone, not from the model.
        spec: Names the model, and what is asked of the quick adapter.
        device: Where the model runs.
        adapter: Whether to train the quick adapter.
        watch: Told about progress.

    Returns:
        A row of ``comparison.json``. All but ``speed`` and ``seconds`` follows from model, pictures and spec.

    Raises:
        KusabiError: If the model cannot be loaded or measured.
    """
    asked = spec.backbone
    folder = locate(asked.backbone, asked.revision).path  # downloads, so that loading is timed alone
    began = time.perf_counter()
    question = pose_on(dataset, spec, device, open_backbone(spec, device))
    loading = time.perf_counter() - began
    backbone = question.backbone
    before = module_digest(backbone.module)
    speed = tower_speed(backbone, [dataset.open(one) for one in _parts(question)[0].query[:BATCH]])
    scores, trained = _answers(question, spec, watch) if adapter else (_frozen(question, spec, watch), None)
    assert module_digest(backbone.module) == before, "training changed the frozen backbone"
    ways = (*FROZEN, "adapted") if adapter else FROZEN
    found = compared(scores, dataset.classes, ways)
    answered = found.pop("pictures")
    found.pop("flips", None)
    return {
        "asked": asked.backbone,
        "error": None,
        "licence": read_licence(folder).to_json(),
        "backbone": backbone.card(),
        "dtype": asked.dtype,
        "weight_bytes": sum(path.stat().st_size for path in weight_files(folder)),
        **found,
        "right": {way: _hits(answered, way) for way in ways},
        "adapter": None if trained is None else {"kind": spec.adapter.kind, "entries": trained[0]},
        "training": None
        if trained is None
        else settings(spec, device, question.precision, len(question.split.support)),
        "speed": speed,
        "seconds": {"load": loading, "adapt": None if trained is None else trained[1]},
    }


def failed(asked: str, reason: str) -> dict[str, Any]:
    """The row of a candidate that could not be measured."""
    return {"asked": asked, "error": reason}


def _parts(question: Question) -> Sequence[Split]:
    return question.split.folds if isinstance(question.split, Folds) else (question.split,)


def _frozen(question: Question, spec: AdaptSpec, watch: Watch) -> Scores:
    return join([frozen_scores(question, spec, part, watch) for part in _parts(question)])


def _answers(question: Question, spec: AdaptSpec, watch: Watch) -> tuple[Scores, tuple[int, float]]:
    """Answers of all four ways; the entries of one adapter, and the seconds it took (mean over folds)."""
    scores, seconds, entries = [], [], 0
    for part in _parts(question):
        fitted = fit_one(question, spec, part.support, watch, None)
        answers = judge_one(question, part.query, [fitted.adapter], watch)
        scores.append(judged(question, fitted, answers, part.query))
        seconds.append(fitted.seconds)
        entries = sum(map(len, fitted.adapter.parts))
    return join(scores), (entries, sum(seconds) / len(seconds))


def _hits(answered: Sequence[Mapping[str, Any]], way: str) -> str:
    return "".join("1" if one[way] == one["label"] else "0" for one in answered)
