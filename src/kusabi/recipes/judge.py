"""Show every query picture to the frozen model once, and to each adapter and peer from the same activations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.prototypes import Prototypes
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.prefix import enter, finish
from kusabi.backbones.preprocessing import pixels
from kusabi.data.ahead import made_ahead
from kusabi.data.dataset import Dataset, Example
from kusabi.recipes.clock import now
from kusabi.recipes.fit_support import Prompts
from kusabi.recipes.watch import Watch
from kusabi.training.texts import class_texts
from kusabi.training.views import blocks_of


@dataclass(frozen=True)
class Answers:
    """What came out for ``n`` query pictures.

    ``zero_shot`` ``(n, C)`` and, one per adapter, ``adapted`` hold probabilities; ``features`` ``(n, D)`` are the
    frozen embeddings; ``seconds`` per picture, without and with an adapter.
    """

    zero_shot: NDArray[np.float64]
    adapted: tuple[NDArray[np.float64], ...]
    features: NDArray[np.float64]
    seconds: tuple[float, float | None]


@torch.no_grad()
def judge(
    backbone: Backbone,
    dataset: Dataset,
    query: Sequence[Example],
    prompts: Prompts,
    adapters: Sequence[Adapter],
    watch: Watch,
) -> Answers:
    """Answers of the frozen model and of each adapter. The backbone is bitwise the same afterwards.

    Args:
        backbone: The frozen model.
        dataset: Where the pictures come from.
        query: Pictures to answer.
        prompts: Of every class.
        adapters: As stored, each made for this backbone and these classes.
        watch: Told how many pictures are done.
    """
    text = class_texts(backbone, prompts)
    zero_shot = Prototypes(text, backbone.scale, backbone.bias).to(backbone.device)
    heads = [classifier(backbone, adapter) for adapter in adapters]
    watch("class names again", 1, 1)
    layers = [first_layer(adapter) for adapter in adapters]
    lowest = min((layer for layer in layers if layer is not None), default=0)
    frozen: list[Tensor] = []
    adapted: list[list[Tensor]] = [[] for _ in adapters]
    spent = np.zeros(3)
    done = 0
    for images in made_ahead(dataset.open, list(blocks_of(query))):
        shown = pixels(images, backbone.preprocessing).to(backbone.device)
        watch("query decoded", 1, 1)
        clock = [now(backbone.device)]
        states = enter(backbone, shown, lowest)
        clock.append(now(backbone.device))
        frozen.append(finish(backbone, states, lowest))
        clock.append(now(backbone.device))
        for rows, head, adapter, layer in zip(adapted, heads, adapters, layers, strict=True):
            rows.append(head(frozen[-1] if layer is None else _adapted_features(backbone, adapter, states, lowest)))
        clock.append(now(backbone.device))
        spent += np.diff(clock)
        done += len(images)
        watch("query pictures", done, len(query))
    entering, finishing, adapting = spent / len(query)
    features = torch.cat(frozen)
    return Answers(
        _probabilities(zero_shot(features)),
        tuple(_probabilities(torch.cat(rows)) for rows in adapted),
        features.double().cpu().numpy(),
        (entering + finishing, entering + adapting / len(adapters) if adapters else None),
    )


def first_layer(adapter: Adapter) -> int | None:
    """Lowest adapted vision layer; None where only the text tower is adapted."""
    return min((t["layer"] for t in adapter.card["targets"] if t["tower"] == "vision"), default=None)


@torch.no_grad()
def classifier(backbone: Backbone, adapter: Adapter) -> Prototypes:
    """The classifier that an adapter carries, around the texts of its adapted text tower."""
    with attached(backbone.module, *adapter.parts):
        text = class_texts(backbone, adapter.card["prompts"])
    head = Prototypes(text, backbone.scale, backbone.bias).to(backbone.device)
    for name, parameter in head.named_parameters():
        if name in adapter.head:
            parameter.data.copy_(adapter.head[name])
    return head.requires_grad_(False)


def _adapted_features(backbone: Backbone, adapter: Adapter, states: Tensor, layer: int) -> Tensor:
    with attached(backbone.module, *adapter.parts):
        return finish(backbone, states, layer)


def _probabilities(logits: Tensor) -> NDArray[np.float64]:
    return logits.double().softmax(dim=1).cpu().numpy()
