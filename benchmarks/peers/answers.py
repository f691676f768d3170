"""What a peer says about the query pictures, and what it cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kusabi.recipes.new_classes import joined

FLOAT = 4  # bytes of a stored number: what the methods' own code writes


@dataclass(frozen=True)
class Answers:
    """``probabilities`` ``(m, C + N)``, float64: of the ``C`` trained classes, then of ``N`` classes without a picture.

    ``trained`` counts the numbers that were learned; ``stored`` is in bytes, beside the backbone; ``seconds`` of the
    processor went into learning, without the frozen features and without the query; ``chosen`` is what was chosen on
    the support set.
    """

    probabilities: NDArray[np.float64]
    trained: int
    stored: int
    seconds: float
    chosen: Mapping[str, float] = field(default_factory=dict)


def answered(
    logits: Tensor, text_logits: Tensor, *, trained: int, stored: int, started: float, learned: float,
    chosen: Mapping[str, float] | None = None,
) -> Answers:  # fmt: skip
    """Answers from logits.

    Args:
        logits: Of the trained classes, ``(m, C)``.
        text_logits: Of all classes from their texts, ``(m, C + N)``; see ``kusabi.recipes.new_classes.joined``.
        trained: Learned numbers.
        stored: Bytes.
        started: When learning began, by ``now``.
        learned: When it was done.
        chosen: What was chosen on the support set.
    """
    own = logits.detach().double().softmax(dim=1).cpu().numpy()
    return Answers(
        joined(own, text_logits.detach().double().cpu().numpy()), trained, stored, learned - started, chosen or {}
    )


def now() -> float:
    """Processor seconds of this process: what a method costs, whatever else the machine does meanwhile."""
    return time.process_time()
