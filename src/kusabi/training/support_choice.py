"""Which entries a sparse delta starts with: scores from the model or from a backward over the support set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
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
from kusabi.errors import AdapterError
from kusabi.training.cross_fit import CrossFit
from kusabi.training.forward import logits_of
from kusabi.training.precision import cast, loss_scale
from kusabi.training.views import BLOCK, Views


@dataclass(frozen=True)
class SupportChoice:
    """By what rule entries are chosen, how they lie together, and how the budget is shared over the targets.

    ``taken`` are positions of weights, rising, that are left to other adapters: single entries are chosen beside them,
    of units only those that hold none. The budget is then shared over what is free; where too few units are, fewer
    entries are chosen.
    """

    rule: Literal["random", "magnitude", "gradient", "snip"]
    granularity: str = "entry"
    allocation: Allocation = "size"
    taken: Mapping[str, Tensor] = field(default_factory=dict)


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
        AdapterError: If gradients are missing or not finite, the granularity is unknown, or too few entries are free.
    """
    weights = dict(backbone.module.named_parameters())
    gradients: Mapping[str, Tensor] = {}
    if choice.rule in ("gradient", "snip") or choice.allocation == "energy":
        gradients = support_gradients(backbone, views, classifier, prompts, plan, precision)
    shapes = {target.tensor: weights[target.tensor].shape for target in plan.targets}
    if choice.rule == "random":
        return random_supports(shapes, plan, choice, seed, gradients)
    chosen = {}
    for name, k in _shares(plan, choice, gradients, shapes).items():
        ranked = scores(choice.rule, weights[name], gradients.get(name), name)
        chosen[name] = choose(ranked, k, choice.granularity, name=name, taken=choice.taken.get(name))
    return _some(chosen, choice)


def random_supports(
    shapes: Mapping[str, Sequence[int]], plan: Plan, choice: SupportChoice, seed: int,
    gradients: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:  # fmt: skip
    """Positions drawn at random, as many as any rule would choose.

    Args:
        shapes: Weight -> its shape.
        plan: As in ``choose_support``.
        choice: How; its rule does not matter.
        seed: Of the draws.
        gradients: For the allocation ``energy``.

    Raises:
        AdapterError: As ``choose_support`` does.
    """
    shares, place = _shares(plan, choice, gradients, shapes), choice.granularity
    return _some(
        {name: choose_random(shapes[name], k, place, seed=seed, name=name, taken=choice.taken.get(name))
         for name, k in shares.items()},
        choice,
    )  # fmt: skip


def _some(chosen: dict[str, Tensor], choice: SupportChoice) -> dict[str, Tensor]:
    if choice.taken and not any(map(len, chosen.values())):
        raise AdapterError(
            f"granularity '{choice.granularity}': no unit that fits the budget is free of the entries of the adapters "
            "beside; use granularity 'entry', other targets, or a larger budget"
        )
    return chosen


def _shares(
    plan: Plan, choice: SupportChoice, gradients: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    sizes = {target.tensor: target.size - len(choice.taken.get(target.tensor, ())) for target in plan.targets}
    if plan.entries > (free := sum(sizes.values())):
        raise AdapterError(
            f"a budget of {plan.entries} entries is more than the {free} of {plan.size} that the adapters beside left "
            "free; lower the budget, or choose other targets"
        )
    if choice.allocation == "size":
        shares = dict(zip(sizes, allocate(plan.entries, list(sizes.values())), strict=True))
    else:
        shares = share_budget(choice.allocation, plan.entries, sizes, gradients)
    units = [height * width for height, width in (unit_shape(choice.granularity, shapes[name]) for name in sizes)]
    whole = whole_units(list(shares.values()), list(sizes.values()), units)
    return dict(zip(sizes, whole, strict=True))


def support_gradients(
    backbone: Backbone, views: Views, classifier: Prototypes | CrossFit, prompts: Sequence[Sequence[str]], plan: Plan,
    precision: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Gradient of the summed cross-entropy over the pictures (first views), in fp32, of every target of a plan."""
    with dense_gradients(backbone.module, tuple(t.tensor for t in plan.targets)) as collected:
        pictures = int(views.pictures.max()) + 1
        for start in range(0, pictures, BLOCK):
            rows = range(start, min(start + BLOCK, pictures))
            with cast(backbone, precision):
                logits = logits_of(backbone, views, classifier, prompts, plan, rows).logits.float()
            loss = F.cross_entropy(logits, views.labels[rows.start : rows.stop], reduction="sum")
            (loss_scale(precision) * loss).backward()
    if isinstance(classifier, Prototypes):
        classifier.zero_grad()
    return collected
