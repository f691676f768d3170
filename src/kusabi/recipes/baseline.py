"""What the model can do before anybody invests: zero-shot, the peers on frozen features, and a recommendation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kusabi.data.split import Folds, Split
from kusabi.recipes.adapt import peer_scores
from kusabi.recipes.environment import environment
from kusabi.recipes.evaluation_record import Scores, compared, group_names, join, task
from kusabi.recipes.judge import judge
from kusabi.recipes.question import Question, pose
from kusabi.recipes.watch import Watch, silent, stage
from kusabi.spec import AdaptSpec
from kusabi.training.views import encode_views

WAYS = ("zero_shot", "class_mean", "linear_probe")
ENOUGH = 0.95  # an accuracy above which an adapter has little left to win
FEW = 4  # labelled pictures in the poorest class below which labelling comes first


def baseline(
    source: str, spec: AdaptSpec, *, device: str = "cpu", threads: int | None = None, watch: Watch = silent
) -> dict[str, Any]:
    """Measure the frozen model on a folder and say what to do next.

    Returns:
        Plain data: ``task``, ``zero_shot``, ``class_mean``, ``linear_probe``, ``best_peer``, ``pictures``,
        ``recommendation`` (``action`` and ``reason``), ``backbone``, ``environment``.

    Raises:
        KusabiError: Whatever the user can put right.
    """
    question = pose(source, spec, device=device, threads=threads, watch=watch)
    parts = question.split.folds if isinstance(question.split, Folds) else (question.split,)
    scores = join([frozen_scores(question, spec, part, watch) for part in parts])
    found = compared(scores, question.dataset.classes, WAYS)
    return {
        "task": task(question.dataset, question.split, question.prompts, spec, len(scores.files)),
        **found,
        "recommendation": recommend(found, _poorest(question), len(question.dataset.classes)),
        "backbone": question.backbone.card(),
        "environment": environment(),
    }


def recommend(found: Mapping[str, Any], poorest: tuple[str, int], classes: int) -> dict[str, str]:
    """What to do next, from three evaluations; the first rule that holds decides.

    Args:
        found: Evaluations of ``zero_shot``, ``class_mean`` and ``linear_probe``, and ``best_peer``.
        poorest: Class with the fewest labelled pictures, and how many it has.
        classes: Number of classes.
    """
    zero, best = found["zero_shot"], found[found["best_peer"]]
    best_name = found["best_peer"].replace("_", " ")
    if zero["interval"][0] >= ENOUGH:
        return _advice("zero-shot suffices", f"zero-shot is right in {_percent(zero)}; an adapter has little to win")
    if poorest[1] < FEW:
        return _advice(
            "label more",
            f"class '{poorest[0]}' has {poorest[1]} labelled pictures to learn from; {FEW} are the least, 16 are good",
        )
    if max(best["interval"][1], zero["interval"][1]) < 1.2 / classes or best["interval"][0] <= 1 / classes:
        return _advice(
            "choose another model",
            f"the best of the simple methods ({best_name}) is right in {_percent(best)}, chance is {1 / classes:.1%}: "
            "this model hardly sees what tells these classes apart (a larger --input-size may help, too)",
        )
    ahead = best["accuracy"] - zero["accuracy"]
    seen = f"zero-shot is right in {_percent(zero)}, {best_name} on frozen features in {_percent(best)}"
    if ahead > 0:
        return _advice("adapt", f"{seen}: the labels teach something that the names alone do not say")
    return _advice("adapt", f"{seen}: there is room to the top, and the names already help")


def _advice(action: str, reason: str) -> dict[str, str]:
    return {"action": action, "reason": reason}


def _percent(way: Mapping[str, Any]) -> str:
    low, high = way["interval"]
    return f"{way['accuracy']:.1%} ({low:.1%} to {high:.1%}, n = {way['n']})"


def _poorest(question: Question) -> tuple[str, int]:
    counts = np.bincount([example.label for example in question.split.support], minlength=len(question.dataset.classes))
    label = int(counts.argmin())
    return question.dataset.classes[label], int(counts[label])


def frozen_scores(question: Question, spec: AdaptSpec, part: Split, watch: Watch) -> Scores:
    """Zero-shot and the peers on the frozen features of one split, or of one fold."""
    views = encode_views(
        question.backbone, question.dataset, part.support, None, views=spec.data.views, augment=spec.data.augment,
        seed=spec.seed, progress=stage(watch, "labelled pictures"),
    )  # fmt: skip
    arrays = (views.features.double().cpu().numpy(), views.labels.cpu().numpy(), views.pictures.cpu().numpy())
    answers = judge(question.backbone, question.dataset, part.query, question.prompts, [], watch)
    scores = {"zero_shot": answers.zero_shot} | peer_scores(*arrays, answers.features, len(question.dataset.classes))
    labels = np.array([example.label for example in part.query])
    files, groups = [example.file for example in part.query], group_names(question.dataset, part.query)
    return Scores(files, groups, labels, scores, answers.seconds)
