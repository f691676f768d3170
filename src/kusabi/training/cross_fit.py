"""Classifiers that have not seen the picture they answer: what the values of an adapter learn against.

A classifier fitted on the support set is right about all of it: values that learn against it see no error but that of
a memory. Here every picture is told apart by class means of the other pictures, blended with the class texts, so that
values learn what makes pictures of a class alike. Class means as the classifier of a training are those of prototypical
networks (arXiv 1703.05175, section 2.2); leaving the answered fold out is cross-fitting (arXiv 1608.00060, section 3).
What it buys is measured in ``benchmarks/few_label_safety.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kusabi.training.anchors import Rows, class_means
from kusabi.training.head import Head

SHARPNESS = 0.5
"""Of the anchor's own scale, the best on its own: softer answers leave every picture something to teach."""


@dataclass(frozen=True)
class CrossFit:
    """``means[fold[row]]`` answer row ``row`` of the views.

    ``means`` ``(K + 1, C, D)`` are unit rows, zero where a class has no picture. Fold 0, of classes with one picture
    alone, has none: the texts have not seen it.
    ``text`` ``(C, D)`` are the frozen texts, ``share`` is that of the means in the blend, ``scale`` is the inverse
    temperature, ``fold`` ``(n * v,)``.
    """

    means: Tensor
    text: Tensor
    share: float
    scale: float
    fold: Tensor

    def __call__(self, images: Tensor, text: Tensor | None, rows: Sequence[int]) -> Tensor:
        """Logits ``(B, C)`` of unit image embeddings ``(B, D)`` that are those rows of the views."""
        own = self.fold[torch.as_tensor(rows, device=self.fold.device)]
        anchors = (self._frozen if text is None else self._around(text))[own]
        return self.scale * torch.einsum("bd,bcd->bc", images.float(), anchors)

    @cached_property
    def _frozen(self) -> Tensor:
        return self._around(self.text)

    def _around(self, text: Tensor) -> Tensor:
        """Anchors of every fold, ``(K + 1, C, D)``."""
        blends = F.normalize((1 - self.share) * text + self.share * self.means, dim=-1)
        return torch.where(self.means.any(-1, keepdim=True), blends, text)


def cross_fit(
    head: Head, features: Rows, labels: NDArray[np.int64], pictures: NDArray[np.int64], text: Tensor, folds: int
) -> CrossFit:
    """Class means without every fold of pictures, by the blend and sharpness of the head fitted on all of them.

    Args:
        head: How the classifier of all pictures was chosen.
        features: Frozen unit embeddings of all views, ``(n * v, D)``.
        labels: Class of each.
        pictures: Picture of each; views of one picture share its fold.
        text: Frozen unit text embeddings ``(C, D)``, on the device of the training.
        folds: At most so many.
    """
    fold = picture_folds(labels, pictures, folds)
    sides = [fold != number for number in range(int(fold.max()) + 1)]
    sides[0] = np.zeros_like(fold, dtype=bool)
    means = np.stack([class_means(features[inside], labels[inside], len(text)) for inside in sides])
    return CrossFit(
        means=torch.from_numpy(means).float().to(text.device),
        text=text.float(),
        share=head.share,
        scale=SHARPNESS * head.scale,
        fold=torch.from_numpy(fold).to(text.device),
    )


def picture_folds(labels: NDArray[np.int64], pictures: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Fold of every row, from 1: the pictures of a class are dealt out in turn. 0 where a class has but one picture."""
    fold = np.zeros_like(pictures)
    for label in np.unique(labels):
        of_class = np.unique(pictures[labels == label])
        for number, picture in enumerate(of_class if len(of_class) > 1 else ()):
            fold[pictures == picture] = 1 + number % folds
    return fold
