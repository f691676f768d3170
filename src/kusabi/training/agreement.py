"""Terms of the loss that hold a model near another answer: the frozen model's, or its own second one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.training.forward import Forward


def agreement(output: Forward, features: Tensor, logits: Tensor) -> Tensor:
    """How far the adapted model is from the frozen one, as in PromptSRC (arXiv 2307.06948, section 3.2).

    Args:
        output: Of the adapted model.
        features: Unit rows ``(B, D)`` of the frozen model on the same views.
        logits: ``(B, C)`` of the classifier that training started from, on the frozen features.

    Returns:
        Kullback-Leibler divergence of the answers, in nats, plus one minus the cosine of the features: means over the
        batch.
    """
    away = F.kl_div(output.logits.float().log_softmax(1), logits.log_softmax(1), reduction="batchmean", log_target=True)
    return away + (1 - (output.features.float() * features).sum(1)).mean()


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """Mean of both Kullback-Leibler divergences between two answers ``(B, C)``, in nats (MoSA, arXiv 2312.02923)."""
    one, two = first.log_softmax(1), second.log_softmax(1)
    terms = (F.kl_div(a, b, reduction="batchmean", log_target=True) for a, b in ((one, two), (two, one)))
    return torch.stack(list(terms)).mean()
