"""Classes that nobody labelled, beside those of an adapter and on one scale with them.

Only their texts are known. Values that learned against a classifier of pictures draw every picture towards its
classes; half of that is what texts of others are best compared with. Values that learned against texts are left whole
(``benchmarks/new_classes.py``).
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.part import AdapterPart
from kusabi.backbones.backbone import Backbone
from kusabi.data.enumeration import enumerated
from kusabi.data.listing import spelling
from kusabi.data.prompts import class_prompts
from kusabi.errors import DataError
from kusabi.training.texts import class_texts

SHARE = 0.5
"""Of the values, in the features that texts of new classes are compared with."""

Prompts = Sequence[Sequence[str]]


def joined(own: NDArray[np.float64], text_logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trained and new classes on one scale, for any method: the chain rule.

    The texts say how likely the picture shows one of the trained classes at all; the method shares that among them.
    New classes keep the texts' probabilities. A method that answers by texts alone gets exactly its own softmax over
    all classes, whatever the scale of the others.

    Args:
        own: Probabilities among the trained classes, ``(m, C)``.
        text_logits: ``(m, C + N)``; trained classes first.
    """
    count = own.shape[1]
    if text_logits.shape[1] == count:
        return own
    texts = np.exp(text_logits - text_logits.max(axis=1, keepdims=True))
    texts /= texts.sum(axis=1, keepdims=True)
    return np.hstack([own * texts[:, :count].sum(axis=1, keepdims=True), texts[:, count:]])


def new_prompts(adapter: Adapter, names: Sequence[str]) -> Prompts:
    """Prompts of new classes, by the templates of the adapter's own.

    Args:
        adapter: As stored.
        names: Of the new classes; underscores and hyphens are read as spaces.

    Raises:
        DataError: Naming what the adapter knows already, what was given twice, or what has no words; or if composing
            left no templates.
    """
    classes, own = set(map(spelling, adapter.card["classes"])), {tuple(prompts) for prompts in adapter.card["prompts"]}
    read = [spelling(name) for name in names]
    known = [name for name, words in zip(names, read, strict=True) if words in classes]
    _refuse(known, "the adapter has these classes already")
    _refuse([name for name, words in zip(names, read, strict=True) if read.count(words) > 1], "given more than once")
    asked = (adapter.card.get("spec") or {}).get("data", {})
    if "templates" not in asked:
        raise DataError("this adapter is composed of some whose templates differ, so that new classes have none")
    made = class_prompts(names, asked["templates"], {})
    _refuse(
        [name for name, said in zip(names, made, strict=True) if said in own], "the adapter has these words already"
    )
    return made


def _refuse(names: Sequence[str], reason: str) -> None:
    if names:
        which = enumerated([f"'{name}'" for name in dict.fromkeys(names)])
        raise DataError(f"{which}: {reason}; name classes that it does not have, each once")


def weakened(adapter: Adapter) -> tuple[AdapterPart, ...]:
    """What makes the features that texts are compared with: copies of the parts that add ``SHARE`` times as much.

    The parts themselves where the adapter has no classifier but the texts.
    """
    if not adapter.head:
        return adapter.parts
    copies = tuple(copy.deepcopy(part) for part in adapter.parts)
    for part in copies:
        part.rescale(SHARE)
    return copies


@torch.no_grad()
def text_logits(
    backbone: Backbone, parts: Sequence[AdapterPart], prompts: Prompts, embed: Callable[[], Tensor]
) -> NDArray[np.float64]:
    """Logits ``(m, C)`` of classes by their texts alone, on features of ``weakened`` parts.

    Args:
        backbone: The frozen model.
        parts: As ``weakened`` gives them; attached while ``embed`` runs.
        prompts: Of every class.
        embed: Makes the unit rows ``(m, D)`` of the pictures.
    """
    with attached(backbone.module, *parts):
        logits = backbone.scale * embed() @ class_texts(backbone, prompts).T
    return logits.double().cpu().numpy()
