"""MoSA (arXiv 2312.02923): the entries of ``up`` shared out to disjoint random experts, one of them active at a time.

``down`` and both biases belong to every expert. As the experts' shares of ``up`` are disjoint and begin at zero, their
sum is the one ordinary ``up`` that is stored and evaluated, exactly: nothing is averaged, nothing is counted twice.
Sums over copies of ``down`` (not zero at birth) or of the biases would count them once for each expert.
"""

import torch
from torch import Tensor

from kusabi.adapters.support import random_scores


def shared_out(entries: int, experts: int, seed: int, name: str) -> Tensor:
    """Which expert each entry of a tensor belongs to: ``(entries,)`` int8, a function of its arguments alone.

    Random scores are cut into as many equal quantiles as there are experts, which differ by one entry at most.
    """
    order = random_scores(entries, seed, f"{name}/experts").sort(stable=True).indices
    owners = torch.empty(entries, dtype=torch.int8)
    owners[order] = (torch.arange(entries) * experts // max(1, entries)).to(torch.int8)
    return owners


def active_expert(experts: int, seed: int, step: int, number: int, name: str) -> int:
    """The expert of one tensor in forward ``number`` of update ``step``, uniform, drawn for each tensor alone."""
    return int(random_scores(1, seed, f"{name}/{step}/{number}").item() * experts)
