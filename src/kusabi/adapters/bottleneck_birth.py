"""Fresh bottlenecks: drawn, pruned, and changing nothing yet.

``down`` is a function of (seed, tensor name, position) alone, on every device, and ``up`` and the biases are zero. The
``bert`` initialisation of SparseAdapter's code draws ``up`` too, so that a fresh adapter already changes the model: it
is not offered. Pruning looks at it nevertheless: rules score blocks with this very ``down`` and an ``up`` from N(0,
0.02^2), as in the authors' code, since at zero most rules are blind (see ``prune``).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.bottleneck_form import Form, checked_form
from kusabi.adapters.part import check_fits
from kusabi.adapters.prune import Loss, Pruning, prune
from kusabi.adapters.support import random_scores
from kusabi.errors import AdapterError

Init = Literal["normal", "kaiming"]
_STD = 0.02


def fresh(
    form: Form, pruning: Pruning | None = None, init: Init = "normal", *,
    module: nn.Module | None = None, losses: Sequence[Loss] = (),
) -> Bottleneck:  # fmt: skip
    """A part that changes nothing yet.

    Biases are trained entries and are counted: a budget of K is K values in all. Large-Sparse (``widen``) keeps K, so
    that its additional biases are paid for by the matrices.

    Args:
        form: Of the blocks; its size is that before widening.
        pruning: How much survives; all of it when absent.
        init: Of ``down``: ``normal``, N(0, 0.02^2), or ``kaiming``, uniform within ``1 / sqrt(d)``.
        module: The model, which the part must fit; for the rules ``snip`` and ``grasp``.
        losses: One for each calibration batch, for the same rules.

    Raises:
        AdapterError: If the budget does not pay for the biases or is larger than the blocks, the part does not fit the
            model, or a rule lacks what it needs.
    """
    if init not in ("normal", "kaiming"):
        raise AdapterError(f"initialisation '{init}' is not offered; write normal or kaiming")
    pruning = pruning or Pruning()
    wide = checked_form({**form.model_dump(), "size": form.size * pruning.widen})
    kept = _matrix_budget(form, wide, pruning)
    part = Bottleneck(wide, _whole(wide))
    if module is not None:
        check_fits(part, module)
        part.to(next(module.parameters()).device)
    for name, _, values in part.parts():
        if name.endswith(".down"):
            values.copy_(_drawn(name, len(values), wide, init))
        elif name.endswith(".up"):
            values.copy_(_normal(name, len(values), form.seed))
    prune(part, pruning, kept, module, losses)
    for name, _, values in part.parts():
        if name.endswith(".up"):
            values.zero_()
    return part


def _matrix_budget(form: Form, wide: Form, pruning: Pruning) -> int:
    weights, biases = form.totals()
    most, paid = wide.totals()
    budget = round(pruning.density * weights) + biases if pruning.entries is None else pruning.entries
    if not 0 < budget - paid <= most:
        raise AdapterError(
            f"a budget of {budget} entries does not suit blocks of {most} weights and {paid} biases in all; it must "
            "pay for the biases and at least one weight, and be no larger than both together"
        )
    return budget - paid


def _whole(form: Form) -> dict[str, Tensor]:
    return {name: torch.arange(size) for point in form.widths for name, size in form.sizes(point).items()}


def _drawn(name: str, count: int, form: Form, init: Init) -> Tensor:
    if init == "normal":
        return _normal(name, count, form.seed)
    bound = 1 / math.sqrt(form.widths[name.removesuffix(".down")])
    return (random_scores(count, form.seed, name) * 2 - 1) * bound


def _normal(name: str, count: int, seed: int) -> Tensor:
    return torch.special.ndtri(random_scores(count, seed, name).clamp(min=2.0**-54)) * _STD
