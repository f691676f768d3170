"""CLIP-SVD (Koleilat et al., 2025, arXiv 2509.03740): only singular values learn, of all matrices in both towers.

``W = W0 + U diag(shift) V'``, which is ``U diag(s + shift) V'`` and bitwise ``W0`` before the first update. The model
runs on plain weights; a value's gradient is ``u' G v`` of its weight's dense gradient ``G``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.answers import Answers
from benchmarks.peers.in_backbone import HeadKind, Trained, answers_of, tuned
from benchmarks.peers.material import Material
from kusabi.backbones.backbone import Backbone


@dataclass(frozen=True)
class Decomposed:
    """A weight ``(p, q)`` that follows its ``shift`` ``(r,)``; ``left`` ``(p, r)`` and ``right`` ``(r, q)``."""

    weight: nn.Parameter
    first: Tensor
    left: Tensor
    right: Tensor
    values: Tensor
    shift: nn.Parameter

    @torch.no_grad()
    def fetch(self) -> None:
        """Take the gradient over from the weight."""
        if self.weight.grad is not None:
            self.shift.grad = ((self.left.T @ self.weight.grad) * self.right).sum(1)
            self.weight.grad = None

    @torch.no_grad()
    def fold(self) -> None:
        """Put the shifted values into the weight."""
        torch.addmm(self.first, self.left * self.shift, self.right, out=self.weight.data)


def clip_svd(material: Material, head: HeadKind = "text") -> Answers:
    """All singular values of attention and MLP matrices learn."""
    return answers_of(material, tuned("clip_svd", material, singular_values, head))


def singular_values(backbone: Backbone) -> Trained:
    """Take all linear maps of all blocks apart."""
    parts = decomposed(backbone)
    for part in parts:
        part.weight.requires_grad_()

    def fetch() -> None:
        for part in parts:
            part.fetch()

    def fold() -> None:
        for part in parts:
            part.fold()

    return Trained([part.shift for part in parts], fetch, fold)


def decomposed(backbone: Backbone) -> list[Decomposed]:
    """Singular vectors of every linear map of the blocks of both towers."""
    return [_decomposed(layer) for _, layer in block_linears(backbone)]


def _decomposed(layer: Any) -> Decomposed:
    first = layer.weight.detach().clone()
    left, values, right = torch.linalg.svd(first, full_matrices=False)
    return Decomposed(layer.weight, first, left, right, values, nn.Parameter(torch.zeros_like(values)))


def block_linears(backbone: Backbone) -> list[tuple[str, nn.Linear]]:
    """Name and linear map, of the blocks of both towers; a map that towers share comes once."""
    found: dict[int, tuple[str, nn.Linear]] = {}
    for blocks in backbone.blocks.values():
        for block in blocks:
            module: Any = backbone.module.get_submodule(block)
            for path, layer in module.named_modules():
                if isinstance(layer, nn.Linear):
                    found.setdefault(id(layer.weight), (f"{block}.{path}", layer))
    return list(found.values())
