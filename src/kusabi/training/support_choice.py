"""Which entries a sparse delta starts with: scores from the model or from a backward over the support set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.allocation import Allocation, allocate, share_budget, whole_units
from kusabi.adapters.granularity import choose, choose_random, unit_shape
from kusabi.adapters.merged_training import dense_gradients
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.support import scores
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.training.cross_fit import CrossFit
from kusabi.training.forward import logits_of
from kusabi.training.precision import autocast, loss_scale
from kusabi.training.views import BLOCK, Views


@dataclass(frozen=True)
class SupportChoice:
    """By what rule entries are chosen, how they lie together, and how the budget is shared over the targets."""

    rule: Literal["random", "magnitude", "gradient", "snip"]
    granularity: str = "entry"
    allocation: Allocation = "size"


def choose_support(
    backbone: Backbone, views: Views, classifier: Prototypes | CrossFit, prompts: Sequence[Sequence[str]], plan: Plan,
    choice: SupportChoice, seed: int, precision: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Trained positions of every target of a plan.

    Gradients are those of the cross-entropy over the pictures (first views) with the classifier that training starts
    from.

    Args:
        backbone: The frozen model.
        views: The support set.
        classifier: What answers.
        prompts: Prompts of every class.
        plan: The targets; their entries are the budget where ``allocation`` is ``size``, else their sum is.
        choice: How.
        seed: Of random choices.
        precision: Of the forward.

    Raises:
        AdapterError: If gradients are missing or not finite, or the granularity is unknown.
    """
    weights = dict(backbone.module.named_parameters())
    gradients: Mapping[str, Tensor] = {}
    if choice.rule in ("gradient", "snip") or choice.allocation == "energy":
        gradients = _gradients(backbone, views, classifier, prompts, plan, precision)
    shares = _shares(plan, choice, gradients, {t.tensor: weights[t.tensor].shape for t in plan.targets})
    chosen = {}
    for name, k in shares.items():
        weight = weights[name]
        if choice.rule == "random":
            chosen[name] = choose_random(weight.shape, k, choice.granularity, seed=seed, name=name)
        else:
            ranked = scores(choice.rule, weight, gradients.get(name), name)
            chosen[name] = choose(ranked, k, choice.granularity, name=name)
    return chosen


def _shares(
    plan: Plan, choice: SupportChoice, gradients: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    sizes = {target.tensor: target.size for target in plan.targets}
    if choice.allocation == "size":
        shares = dict(zip(sizes, allocate(plan.entries, list(sizes.values())), strict=True))
    else:
        shares = share_budget(choice.allocation, plan.entries, sizes, gradients)
    units = [height * width for height, width in (unit_shape(choice.granularity, shapes[name]) for name in sizes)]
    whole = whole_units(list(shares.values()), list(sizes.values()), units)
    return dict(zip(sizes, whole, strict=True))


def _gradients(
    backbone: Backbone, views: Views, classifier: Prototypes | CrossFit, prompts: Sequence[Sequence[str]], plan: Plan,
    precision: str,
) -> dict[str, Tensor]:  # fmt: skip
    with dense_gradients(backbone.module, tuple(t.tensor for t in plan.targets)) as collected:
        pictures = int(views.pictures.max()) + 1
        for start in range(0, pictures, BLOCK):
            rows = range(start, min(start + BLOCK, pictures))
            with autocast(precision, str(backbone.device)):
                logits = logits_of(backbone, views, classifier, prompts, plan, rows).logits.float()
            loss = F.cross_entropy(logits, views.labels[rows.start : rows.stop], reduction="sum")
            (loss_scale(precision) * loss).backward()
    if isinstance(classifier, Prototypes):
        classifier.zero_grad()
    return collected
