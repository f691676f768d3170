"""Which entries of bottlenecks survive: SparseAdapter's rules (He et al., arXiv 2210.04284, section 3), at birth.

Only entries of ``down`` and ``up`` are scored; the model around them is frozen. The largest scores stay, ties go to the
earlier entry. Scores are not normalised as in the authors' code: one factor for all changes no order.

Rules see the values that the blocks have. Where ``up`` is zero, as a block needs to change nothing, SNIP is zero
everywhere (up is zero, and so is the gradient of down) and so is SynFlow; ``bottleneck_birth`` scores blocks whose up
was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kusabi.adapters.attach import attached
from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.support import allocate, random_scores, top_support
from kusabi.errors import AdapterError

PruneRule = Literal["random", "magnitude", "snip", "grasp", "synflow"]
Loss = Callable[[], Tensor]
"""Runs the model on one batch of its own and answers with a scalar; the same each time it is called."""


@dataclass(frozen=True)
class Pruning:
    """How many entries survive, and which.

    Attributes:
        rule: ``random``; ``magnitude``: |w|; ``snip``: |g w|; ``grasp``: w (H g), its largest; ``synflow``: |w dR/dw|.
        density: Share of the dense matrices' entries that stays (the authors' code calls this its sparsity).
        entries: Trained entries in all, biases counted, in place of a density.
        scope: ``global``: one threshold over all matrices. ``local``: the same share of each matrix.
        widen: Large-Sparse: this many times wider bottlenecks of as many entries.
        rounds: Rounds of scoring, each keeping ``density ** (round / rounds)``; SynFlow's authors take 100.
    """

    rule: PruneRule = "random"
    density: float = 1.0
    entries: int | None = None
    scope: Literal["global", "local"] = "global"
    widen: int = 1
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.rule not in get_args(PruneRule):
            raise AdapterError(f"pruning rule '{self.rule}' is not known; write {', '.join(get_args(PruneRule))}")
        if self.scope not in ("global", "local"):
            raise AdapterError(f"pruning scope '{self.scope}' is not known; write global or local")
        if not 0 < self.density <= 1:
            raise AdapterError(f"density {self.density} is not in (0, 1]; it is the share that stays")
        if self.widen < 1 or self.rounds < 1:
            raise AdapterError(f"widen {self.widen} and rounds {self.rounds} must be 1 or more")


def prune(part: Bottleneck, pruning: Pruning, kept: int, module: nn.Module | None, losses: Sequence[Loss]) -> None:
    """Leave ``kept`` entries of the matrices, in place; biases stay whole.

    Args:
        part: Its values are what is scored.
        pruning: The rule, the scope and the rounds.
        kept: Entries of all ``down`` and ``up`` that stay.
        module: The model that the losses run, for ``snip`` and ``grasp``.
        losses: One for each calibration batch, for ``snip`` and ``grasp``.

    Raises:
        AdapterError: If a rule lacks what it needs, or its scores cannot rank anything.
    """
    before = _matrix_entries(part)
    for number in range(1, pruning.rounds + 1):
        share = before * (kept / before) ** (number / pruning.rounds)
        target = kept if number == pruning.rounds else max(kept, round(share))
        if target < _matrix_entries(part):
            scores = birth_scores(part, pruning.rule, module, losses)
            _keep(part, scores, target, pruning.scope)


def birth_scores(
    part: Bottleneck, rule: PruneRule, module: nn.Module | None = None, losses: Sequence[Loss] = ()
) -> Tensor:
    """Score of every entry of a part, ``(entries,)`` in fp64; those of biases mean nothing.

    ``snip`` and ``grasp`` add up the gradients of all losses before they multiply. ``synflow`` looks at no data: all
    weights are made absolute, ones are put in and R is the sum of what comes out; the activation passes them, as ReLU
    does, and neither a norm (which would make them zero) nor biases take part.

    Raises:
        AdapterError: If there is no module or no loss for a rule that needs them, the loss does not depend on the part,
            or scores are not finite or all zero.
    """
    weights, matrix = part.values.detach().to(torch.float64), _matrices(part)
    if rule == "random":
        return torch.cat([random_scores(len(i), part.form.seed, f"{name}/prune") for name, i, _ in part.parts()])
    if rule == "magnitude":
        scores = weights.abs()
    elif rule == "synflow":
        scores = torch.cat([_flows(part, point) for point in part.points])
    elif module is None or not losses:
        raise AdapterError(f"pruning by {rule} needs the model and the losses of some calibration batches")
    else:
        with attached(module, part), eager_attention(), torch.enable_grad():
            gradient = _summed(_gradient(loss, part, graph=False) for loss in losses)
            if rule == "grasp":
                towards = gradient * matrix
                gradient = _summed(_hessian_product(loss, part, towards) for loss in losses)
        scores = gradient.to(torch.float64) * weights
        scores = scores.abs() if rule == "snip" else scores
    seen = scores[matrix]
    if not bool(seen.isfinite().all()):
        raise AdapterError(f"{int((~seen.isfinite()).sum())} of {len(seen)} {rule} scores are not finite; use float32")
    if not bool(seen.any()):
        raise AdapterError(f"all {rule} scores are zero, so that none is better than another; is every 'up' zero?")
    return scores


@contextmanager
def eager_attention() -> Iterator[None]:
    """Attention as plain matrix products: fused kernels cannot be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _gradient(loss: Loss, part: Bottleneck, *, graph: bool) -> Tensor:
    value = loss()
    if value.requires_grad:
        gradient = torch.autograd.grad(value, part.values, create_graph=graph, allow_unused=True)[0]
        if gradient is not None:
            return gradient
    raise AdapterError("the loss does not depend on the adapter; it must run the model that is given, with gradients")


def _hessian_product(loss: Loss, part: Bottleneck, towards: Tensor) -> Tensor:
    product = (_gradient(loss, part, graph=True) * towards).sum()
    return torch.autograd.grad(product, part.values)[0]


def _summed(tensors: Iterator[Tensor]) -> Tensor:
    total = next(tensors).clone()
    for tensor in tensors:
        total += tensor
    return total


def _flows(part: Bottleneck, point: str) -> Tensor:
    """SynFlow of one point's entries: how much of the flow of ones through the block each of them carries."""
    width, size = part.form.widths[point], part.form.size
    down, up = (_absolute(part, f"{point}.{tensor}") for tensor in ("down", "up"))
    down, up = down.view(size, width), up.view(width, size)
    flows = {"down": down * up.sum(0)[:, None], "up": up * down.sum(1)}
    found = []
    for name in part.form.sizes(point):
        at = part.indices[part.slices[name]].to(torch.int64)
        tensor = name.rpartition(".")[2]
        found.append(flows[tensor].flatten()[at] if tensor in flows else torch.zeros(len(at), device=at.device))
    return torch.cat(found)


def _absolute(part: Bottleneck, name: str) -> Tensor:
    own = part.slices[name]
    dense = torch.zeros(part.form.sizes(name.rpartition(".")[0])[name], dtype=torch.float64, device=part.indices.device)
    return dense.index_copy_(0, part.indices[own].to(torch.int64), part.values.data[own].abs().to(torch.float64))


def _matrices(part: Bottleneck) -> Tensor:
    """Which entries are of matrices, ``(entries,)`` bool."""
    found = torch.zeros(len(part), dtype=torch.bool, device=part.indices.device)
    for name, own in part.slices.items():
        found[own] = not name.endswith("_bias")
    return found


def _matrix_entries(part: Bottleneck) -> int:
    return sum(len(indices) for name, indices, _ in part.parts() if not name.endswith("_bias"))


def _keep(part: Bottleneck, scores: Tensor, kept: int, scope: str) -> None:
    """Place the entries with the largest scores, and all biases."""
    matrix = _matrices(part)
    if scope == "global":
        groups, shares = [torch.nonzero(matrix).flatten()], [kept]
    else:
        spans = [own for name, own in part.slices.items() if not name.endswith("_bias")]
        groups = [torch.arange(own.start, own.stop, device=matrix.device) for own in spans]
        shares = allocate(kept, [len(group) for group in groups])
    staying = ~matrix
    for group, share in zip(groups, shares, strict=True):
        best = top_support(scores[group.to(scores.device)], share, name="pruning")
        staying[group[best.to(group.device, torch.int64)]] = True
    counts = [int(staying[own].sum()) for own in part.slices.values()]
    part.place(counts, part.indices[staying], part.values.data[staying])
