"""One training of an ablation: how well it answers the query pictures, and labelled pictures that it held out.

What is evaluated is the adapter as it would be stored, as everywhere.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter, rounded
from kusabi.training.learn import Learned, Setting, learn, rescale
from kusabi.training.scale_choice import FOLDS, choose_scales, halves
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features, carried


@dataclass
class Side:
    """Pictures of one seed where the frozen layers left them: learned from, and judged.

    ``folds`` says, for every view of ``support``, which fold judges its picture, where no others are held out: then
    ``query`` is None.
    """

    support: Views
    query: Views | None
    folds: Tensor | None

    def climbed(self, setting: Setting, layer: int) -> "Side":
        """The same at a higher vision layer."""
        query = None if self.query is None else carried(setting.backbone, self.query, layer)
        return Side(carried(setting.backbone, self.support, layer), query, self.folds)

    def seen(self, setting: Setting) -> "Side":
        """The same for a training: without activations where the vision tower is frozen."""
        if "vision" in setting.plan.first_layer:
            assert self.support.layer == setting.plan.first_layer["vision"], "the frozen layers are those of the plan"
            return self
        query = None if self.query is None else carried(setting.backbone, self.query, None)
        return Side(carried(setting.backbone, self.support, None), query, self.folds)


def measured(setting: Setting, side: Side) -> dict[str, Any]:
    """Train, answer, and train again on parts of the support set.

    Returns:
        ``accuracy`` and mean ``log_loss`` (nats) on the query pictures and ``right``, a 1 or 0 for each;
        ``support_loss`` and ``support_losses`` of labelled pictures by trainings without them, in their order, None
        where a class has but one; ``entries``; ``layers_backward``: from the lowest adapted layer to the top, both
        towers; ``seconds`` of one training on the whole support set, or, cross-validated, on one fold's.
    """
    began = time.perf_counter()
    side = side.seen(setting)
    if side.query is not None:
        whole = _trained(setting, side.support)
        seconds = time.perf_counter() - began
        answers, labels = _logits(setting, whole, side.query), side.query.labels
        halved = halves(side.support)
        held = _held_out(setting, side.support, None if halved is None else halved - 1, FOLDS)
        support = None if held is None else held[0]
    else:
        assert side.folds is not None
        held = _held_out(setting, side.support, side.folds, int(side.folds.max()) + 1)
        assert held is not None
        seconds = (time.perf_counter() - began) / (int(side.folds.max()) + 1)
        support, whole = held
        answers, labels = support, side.support.first().labels
    depths = {tower: len(names) for tower, names in setting.backbone.blocks.items()}
    mistakes = None if support is None else _losses(support, side.support.first().labels)
    return {
        "entries": sum(map(len, whole.parts)),
        "layers_backward": sum(depths[tower] - first for tower, first in setting.plan.first_layer.items()),
        "accuracy": float((answers.argmax(1) == labels).double().mean()),
        "log_loss": float(F.cross_entropy(answers.double(), labels)),
        "right": "".join("1" if hit else "0" for hit in (answers.argmax(1) == labels).tolist()),
        "support_loss": None if mistakes is None else sum(mistakes) / len(mistakes),
        "support_losses": mistakes,
        "seconds": round(seconds, 3),
    }


def _losses(logits: Tensor, labels: Tensor) -> list[float]:
    return [round(loss, 6) for loss in F.cross_entropy(logits.double(), labels, reduction="none").tolist()]


def _held_out(setting: Setting, views: Views, folds: Tensor | None, count: int) -> tuple[Tensor, Learned] | None:
    """Logits ``(n, C)`` of all pictures by trainings without them, and the last of these."""
    if folds is None:
        return None
    parts: list[tuple[Sequence[int], Tensor]] = []
    learned = None
    for fold in range(count):
        learned = _trained(setting, views.only(folds != fold))
        judged = views.only(folds == fold).first()
        parts.append((views.pictures[folds == fold].unique().tolist(), _logits(setting, learned, judged)))
    assert learned is not None
    answers = torch.empty(int(views.pictures.max()) + 1, parts[0][1].shape[1], device=parts[0][1].device)
    for pictures, logits in parts:
        answers[torch.as_tensor(pictures, device=answers.device)] = logits
    return answers, learned


def _trained(setting: Setting, views: Views) -> Learned:
    """Learned, scaled and rounded, as ``adapt`` stores it."""
    learned = learn(setting, views)
    scales = choose_scales(setting, views)
    rescale(setting, views, learned, scales.alpha, scales.head_alpha)
    stored = rounded(Adapter(learned.parts, learned.classifier, {}))
    prototypes = copy.deepcopy(learned.prototypes)
    for name, parameter in prototypes.named_parameters() if stored.head else ():
        parameter.data.copy_(stored.head[name])
    return Learned(stored.parts, prototypes, learned.head, learned.start, learned.steps, learned.refitted)


@torch.no_grad()
def _logits(setting: Setting, learned: Learned, views: Views) -> Tensor:
    with attached(setting.backbone.module, *learned.parts):
        text = class_texts(setting.backbone, setting.prompts) if "text" in setting.plan.first_layer else None
        return learned.prototypes(adapted_features(setting.backbone, views), text)
