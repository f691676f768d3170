"""Fresh parts of the kind that a spec asks for: nothing is changed by them yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters import bottleneck_birth, low_rank
from kusabi.adapters.allocation import allocate
from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.bottleneck_form import checked_form
from kusabi.adapters.granularity import unit_shape
from kusabi.adapters.hybrid import rank_cost, split_budget
from kusabi.adapters.insertion import insertion_points
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.low_rank_settings import rising_shrinkage
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.prune import Loss, Pruning
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.adapters.targets import Plan, placed_blocks
from kusabi.backbones.backbone import Backbone
from kusabi.errors import AdapterError
from kusabi.spec import AdaptSpec, LowRankSpec
from kusabi.training.cross_fit import CrossFit
from kusabi.training.forward import logits_of
from kusabi.training.support_choice import SupportChoice, choose_support, random_supports
from kusabi.training.views import BLOCK, Views


@dataclass(frozen=True)
class Sample:
    """Labelled pictures and the classifier that training starts from: what rules by gradients look at."""

    views: Views
    classifier: Prototypes | CrossFit
    prompts: Sequence[Sequence[str]]
    precision: str


@dataclass(frozen=True)
class Birth:
    """What fresh parts are made from; ``plan`` says the weights, and by them the budget of every kind.

    ``taken`` are positions of weights that a sparse delta leaves to other adapters.
    """

    backbone: Backbone
    plan: Plan
    spec: AdaptSpec
    sample: Sample | None
    taken: Mapping[str, Tensor] = field(default_factory=dict)


def fresh_parts(birth: Birth, *, empty: bool = False) -> tuple[AdapterPart, ...]:
    """Parts of the asked kind, on the backbone's device.

    Args:
        birth: What they are made from. Without a sample, entries are chosen at random, as many and where they may be.
        empty: Choose no entries: a checkpoint brings them.

    Raises:
        AdapterError: If the budget does not suit the kind, or gradients are missing or not finite.
    """
    match birth.spec.adapter.kind:
        case "sparse_delta":
            parts: tuple[AdapterPart, ...] = (_sparse_delta(birth, birth.plan, empty),)
        case "low_rank":
            parts = (_low_rank(birth, _rank(birth)),)
        case "hybrid":
            parts = _hybrid(birth, empty)
        case "bottleneck":
            parts = (_bottleneck(birth, empty),)
    return tuple(part.to(birth.backbone.device) for part in parts)


def _sparse_delta(birth: Birth, plan: Plan, empty: bool) -> SparseDelta:
    adapter = birth.spec.adapter
    unit_shape(adapter.granularity, (1, 1))  # refuses what is none
    if empty:
        return SparseDelta({target.tensor: torch.empty(0, dtype=torch.int32) for target in plan.targets})
    if (sample := birth.sample) is None:
        return SparseDelta(_anywhere(birth, plan))
    rule = adapter.support_rule
    assert rule != "change" and rule != "warm_up", "that support comes of a training"
    choice = SupportChoice(rule, adapter.granularity, adapter.allocation, birth.taken)
    chosen = choose_support(
        birth.backbone, sample.views, sample.classifier, sample.prompts, plan, choice, birth.spec.seed, sample.precision
    )
    return SparseDelta(chosen)


def _anywhere(birth: Birth, plan: Plan) -> dict[str, Tensor]:
    """As many entries as will be chosen, at random."""
    if not birth.taken:
        return {t.tensor: random_support(t.size, t.entries, birth.spec.seed, t.tensor) for t in plan.targets}
    weights = dict(birth.backbone.module.named_parameters())
    # Rows of random scores are no less free than those of any other rule.
    choice = SupportChoice("random", birth.spec.adapter.granularity, taken=birth.taken)
    return random_supports({t.tensor: weights[t.tensor].shape for t in plan.targets}, plan, choice, birth.spec.seed)


def _shapes(birth: Birth) -> dict[str, Sequence[int]]:
    weights = dict(birth.backbone.module.named_parameters())
    return {target.tensor: weights[target.tensor].shape for target in birth.plan.targets}


def _rank(birth: Birth) -> int:
    asked, shapes = birth.spec.low_rank, _shapes(birth)
    if asked.rank is not None:
        return asked.rank
    cost = rank_cost(shapes, gated=asked.shrinkage is not None)
    if birth.plan.entries < cost:
        raise AdapterError(
            f"a budget of {birth.plan.entries} entries buys no rank: one of all {len(shapes)} weights costs {cost}; "
            "raise --budget or --density, or target fewer --projections or --layers"
        )
    return birth.plan.entries // cost


def _low_rank(birth: Birth, rank: int) -> LowRank:
    asked = birth.spec.low_rank
    return low_rank.fresh(
        _shapes(birth), rank, 2 * rank if asked.lora_alpha is None else asked.lora_alpha,
        rank_stabilized=asked.rank_stabilized, dropout=asked.lora_dropout, shrinkage=_shrinkage(asked),
        seed=birth.spec.seed,
    )  # fmt: skip


def _shrinkage(asked: LowRankSpec) -> low_rank.Shrinkage:
    if asked.shrinkage is None or asked.shrinkage_last is None:
        return asked.shrinkage
    return rising_shrinkage(asked.shrinkage, asked.shrinkage_last, asked.shrinkage_stages, asked.shrinkage_spacing)


def _hybrid(birth: Birth, empty: bool) -> tuple[AdapterPart, ...]:
    sparse, rank = hybrid_shares(birth)
    return _sparse_delta(birth, sparse, empty), _low_rank(birth, rank)


def hybrid_shares(birth: Birth) -> tuple[Plan, int]:
    """What a hybrid's budget pays for: the targets with their sparse entries, and the rank of all of them.

    Raises:
        AdapterError: If the budget does not suit.
    """
    asked, plan = birth.spec.low_rank, birth.plan
    shapes, gated = _shapes(birth), asked.shrinkage is not None
    rank = asked.rank or max(1, int(asked.low_rank_share * plan.entries) // rank_cost(shapes, gated=gated))
    split = split_budget(plan.entries, shapes, rank=rank, gated=gated)
    shares = allocate(split.entries, [target.size for target in plan.targets])
    sparse = Plan(tuple(replace(target, entries=k) for target, k in zip(plan.targets, shares, strict=True)))
    return sparse, split.rank


def _bottleneck(birth: Birth, empty: bool) -> Bottleneck:
    asked, module = birth.spec.bottleneck, birth.backbone.module
    blocks = [block for _, _, block in placed_blocks(birth.backbone.blocks, birth.spec.adapter)]
    widths = insertion_points(module, blocks, asked.where)
    form = checked_form(
        {
            "widths": widths, "size": asked.bottleneck_size or _dense_size(widths, birth.plan.entries),
            "placement": asked.form, "activation": asked.activation, "scale": asked.bottleneck_scale,
            "dropout": asked.bottleneck_dropout, "experts": asked.experts, "seed": birth.spec.seed,
        }
    )  # fmt: skip
    rule = "random" if empty or birth.sample is None else asked.prune_rule  # as many entries, for a checkpoint's own
    pruning = Pruning(rule, entries=birth.plan.entries, scope=asked.prune_scope, widen=asked.widen)
    losses = _losses(birth, birth.sample) if birth.sample and rule in ("snip", "grasp") else ()
    return bottleneck_birth.fresh(form, pruning, asked.down_init, module=module, losses=losses)


def _dense_size(widths: Mapping[str, int], budget: int) -> int:
    """The smallest bottleneck whose dense blocks are no less than a budget: pruning takes what is too much."""
    offsets = sum(widths.values())
    return max(1, -(-(budget - offsets) // sum(2 * width + 1 for width in widths.values())))


def _losses(birth: Birth, sample: Sample) -> list[Loss]:
    """The cross-entropy of the pictures themselves, block by block, in fp32: GraSP differentiates twice."""
    pictures = int(sample.views.pictures.max()) + 1

    def of(rows: range) -> Loss:
        def loss() -> Tensor:
            output = logits_of(birth.backbone, sample.views, sample.classifier, sample.prompts, birth.plan, rows)
            return F.cross_entropy(output.logits.float(), sample.views.labels[rows.start : rows.stop], reduction="sum")

        return loss

    return [of(range(start, min(start + BLOCK, pictures))) for start in range(0, pictures, BLOCK)]
