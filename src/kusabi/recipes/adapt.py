"""The main job: a folder of labelled pictures becomes a sparse adapter and an honest evaluation of it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kusabi.adapters.checkpoint import Adapter
from kusabi.backbones.digest import module_digest
from kusabi.data.dataset import Example
from kusabi.data.split import Folds
from kusabi.evaluation.peers import class_mean, linear_probe
from kusabi.evaluation.stored import THUMBNAILS, read_evaluation
from kusabi.recipes.environment import environment
from kusabi.recipes.evaluation_record import Scores, group_names, join, record
from kusabi.recipes.fit_support import Fitted, fit_support
from kusabi.recipes.judge import Answers, judge
from kusabi.recipes.profile import Profile
from kusabi.recipes.question import Question, given_now, pose, read_pictures
from kusabi.recipes.run_folder import check_given, check_run, finish_run, running, write_json
from kusabi.recipes.thumbnails import thumbnails
from kusabi.recipes.watch import Watch, silent
from kusabi.spec import AdaptSpec


def adapt(
    source: str,
    spec: AdaptSpec,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    command: str = "",
    watch: Watch = silent,
    profile: bool = False,
    since_start: bool = False,
) -> dict[str, Any]:
    """Fit a sparse adapter to a folder and evaluate it beside zero-shot and the peers.

    Args:
        source: Folder of pictures, saved dataset, or Hub id.
        spec: What is asked.
        out: The run folder.
        resume: Go on with the run that is there, if any; a finished one of the same pictures is left alone.
        device: Where the model runs.
        threads: CPU threads; torch's own choice when absent.
        command: What the user typed, for the record.
        watch: Told about progress.
        profile: Keep where time and memory went, as ``stages`` of the evaluation's cost.
        since_start: Count the life of the process so far as the first of them.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        KusabiError: Whatever the user can put right; nothing half-written is left.
    """
    if check_run(out, spec, resume, "adapt"):
        check_given(out, given_now(read_pictures(source, spec, watch), spec))
        return read_evaluation(out)
    profiled = Profile(watch, device, since_start=since_start) if profile else None
    watch = profiled or watch
    began = time.perf_counter()
    question = pose(source, spec, device=device, threads=threads, watch=watch)
    with running(out, spec, "adapt", environment() | {"command": command, **question.given()}, resume):
        before = module_digest(question.backbone.module)
        watch("model checked", 1, 1)
        scores = [_answered(question, fitted, fold.query, watch) for fold, fitted in _folds(question, spec, watch)]
        support = question.split.support
        fitted = fit_one(question, spec, support, watch, out)
        if not isinstance(question.split, Folds):
            scores = [_answered(question, fitted, question.split.query, watch)]
        assert module_digest(question.backbone.module) == before, "training changed the frozen backbone"
        watch("model unchanged", 1, 1)
        total = time.perf_counter() - began
        return write_evaluation(out, question, spec, fitted, join(scores), device, command, total, profiled)


def fit_one(question: Question, spec: AdaptSpec, support: Sequence[Example], watch: Watch, run: Path | None) -> Fitted:
    """Train on a support set."""
    return fit_support(
        question.backbone, question.dataset, support, question.prompts, question.plan, spec,
        precision=question.precision, watch=watch, run=run, beside=question.beside,
    )  # fmt: skip


def judge_one(question: Question, query: Sequence[Example], adapters: Sequence[Adapter], watch: Watch) -> Answers:
    """Answers to query pictures."""
    return judge(question.backbone, question.dataset, query, question.prompts, adapters, watch)


def _answered(question: Question, fitted: Fitted, query: Sequence[Example], watch: Watch) -> Scores:
    scores = judged(question, fitted, judge_one(question, query, [fitted.adapter], watch), query)
    watch("peers", 1, 1)
    return scores


def _folds(question: Question, spec: AdaptSpec, watch: Watch):
    if isinstance(question.split, Folds):
        for number, fold in enumerate(question.split.folds, 1):

            def named(stage: str, done: int, total: int, number: int = number, **facts: Any) -> None:
                watch(f"fold {number}: {stage}", done, total, **facts)

            yield fold, fit_one(question, spec, fold.support, named, None)


def judged(question: Question, fitted: Fitted, answers: Answers, query: Sequence[Example], which: int = 0) -> Scores:
    """All four ways of answering, from the same support set and the same pictures."""
    classes = len(question.dataset.classes)
    peers = peer_scores(fitted.features, fitted.labels, fitted.pictures, answers.features, classes)
    return Scores(
        files=[example.file for example in query],
        groups=group_names(question.dataset, query),
        labels=np.array([example.label for example in query]),
        scores={"zero_shot": answers.zero_shot, **peers, "adapted": answers.adapted[which]},
        seconds=answers.seconds,
    )


def peer_scores(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    pictures: NDArray[np.int64],
    query: NDArray[np.float64],
    classes: int,
) -> dict[str, NDArray[np.float64]]:
    """What class mean and linear probe make of the same views ``(n, D)``; probabilities ``(m, C)``."""
    return {
        "class_mean": class_mean(features, labels, query, classes, groups=pictures),
        "linear_probe": linear_probe(features, labels, pictures, query, classes),
    }


def write_evaluation(
    out: Path, question: Question, spec: AdaptSpec, fitted: Fitted, scores: Scores, device: str, command: str,
    total: float, profile: Profile | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write thumbnails and, last, the evaluation; with the stages of a profile, which end just before."""
    evaluation = record(out, question, spec, fitted, scores, device, command, total)
    write_json(out / THUMBNAILS, thumbnails(question.dataset, evaluation["flips"]))
    if profile:
        profile("evaluation", 1, 1)
        evaluation["cost"]["stages"] = profile.stages()
    finish_run(out, evaluation)
    return evaluation
