"""The classifier of composed adapters.

One rule for adapters of one task and of different tasks:

- A class keeps its prototype row and its offset: the mean over the adapters that know it, in the weights of the
  composition, made to add up to 1. A class of one adapter alone keeps both bitwise; a text classifier counts as zeros.
- All classes are on one logit scale: the logarithm of the gain is the mean over all adapters in the same weights. Rows
  are of about unit length, so that a common gain makes classes of different adapters comparable; among the classes of
  one adapter the order of the answers to given features stays as it was.
- A class that two adapters know by different prompts is two classes of one name, and is refused.

Classes stay in their order where all adapters agree on it, otherwise they are sorted by name. The order of the adapters
never matters, not by one bit: terms are sorted before they are added, in float64.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kusabi.errors import AdapterError, listed


@dataclass(frozen=True)
class ClassHead:
    """Classes, the prompts of each, and the tensors of ``checkpoint.HEAD_TYPES``; none for a text classifier."""

    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    tensors: Mapping[str, Tensor]


def compose_heads(heads: Sequence[ClassHead], weights: Sequence[float]) -> ClassHead:
    """One classifier in place of several, by the rule above.

    Args:
        heads: At least one, all of one embedding size.
        weights: One finite factor for each.

    Raises:
        AdapterError: Listing classes that are known by different prompts, and those whose weights do not add up to more
            than 0, so that they have no mean.
    """
    places = [{name: row for row, name in enumerate(head.classes)} for head in heads]
    agreed = len({head.classes for head in heads}) == 1
    classes = heads[0].classes if agreed else tuple(sorted({name for head in heads for name in head.classes}))
    prompts, wrong = [], []
    for name in classes:
        known = {head.prompts[of[name]] for head, of in zip(heads, places, strict=True) if name in of}
        prompts.append(min(known))
        if len(known) > 1:
            wrong.append(f"class '{name}' is known by different prompts: {' / '.join(map(str, sorted(known)))}")
        if math.fsum(w for w, of in zip(weights, places, strict=True) if name in of) <= 0:
            wrong.append(f"class '{name}': the weights of the adapters that know it must add up to more than 0")
    if math.fsum(weights) <= 0:
        wrong.append("the weights must add up to more than 0 in all, or the temperature has no mean")
    if wrong:
        raise AdapterError(f"these classifiers cannot be composed: {listed(wrong, '; ')}")
    if not any(head.tensors for head in heads):
        return ClassHead(classes, tuple(prompts), {})
    width = next(head.tensors["displacement"].shape[1] for head in heads if head.tensors)
    rows = [_rows(head, width) for head in heads]
    of_class = []
    for name in classes:
        own = [(r[of[name]], w) for r, of, w in zip(rows, places, weights, strict=True) if name in of]
        of_class.append(_mean([row for row, _ in own], [w for _, w in own]))
    gains = [head.tensors["log_gain"] if head.tensors else torch.zeros(()) for head in heads]
    stacked = torch.stack(of_class)
    tensors = {"displacement": stacked[:, :-1].clone(), "offset": stacked[:, -1].clone()}
    return ClassHead(classes, tuple(prompts), tensors | {"log_gain": _mean(gains, weights)})


def _rows(head: ClassHead, width: int) -> Tensor:
    """Displacement and offset side by side: ``(C, D + 1)``."""
    if not head.tensors:
        return torch.zeros(len(head.classes), width + 1)
    return torch.cat([head.tensors["displacement"].float(), head.tensors["offset"].float()[:, None]], 1)


def _mean(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean in float64, whatever the order of the terms; rounded to fp32 once."""
    whole = math.fsum(weights)
    parts = (
        torch.stack([term.double() * (w / whole) for term, w in zip(terms, weights, strict=True)]).sort(dim=0).values
    )
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total.float()
