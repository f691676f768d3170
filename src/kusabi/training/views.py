"""The support set as the frozen layers see it, computed once: every view's activations at the first adapted layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from kusabi.backbones.backbone import Backbone
from kusabi.backbones.class_token import class_token_alone
from kusabi.backbones.prefix import carry, enter, finish
from kusabi.backbones.preprocessing import pixels
from kusabi.data.ahead import made_ahead
from kusabi.data.augmentation import augmented
from kusabi.data.dataset import Dataset, Example
from kusabi.training.precision import cast

BLOCK = 16  # pictures in one frozen forward; fixed, so that a value does not depend on where a run stopped
CACHE_BYTES = 4 * 2**30  # above it activations are computed again for every batch


@dataclass(frozen=True)
class Views:
    """``n`` pictures in ``v`` views each, view-major: row ``view * n + picture``.

    ``states`` ``(n * v, ...)`` enter layer ``layer``; None where the tower is not adapted or they would not fit into
    memory. ``features`` ``(n * v, D)`` are the frozen embeddings, unit rows; ``labels`` and ``pictures`` ``(n * v,)``.
    ``precision`` is that of forwards of these views that learn nothing.
    """

    states: Tensor | None
    features: Tensor
    labels: Tensor
    pictures: Tensor
    layer: int | None
    reload: Callable[[Sequence[int]], Tensor]
    precision: str = "float32"

    def batch(self, rows: Sequence[int]) -> Tensor:
        """Activations ``(len(rows), ...)`` entering the first adapted layer, on the device of the features."""
        if self.states is None:
            return self.reload(rows)
        return self.states[torch.as_tensor(rows)].to(self.features.device)

    def first(self) -> "Views":
        """The pictures themselves, one view each."""
        return self.only(torch.arange(len(self.labels), device=self.labels.device) <= int(self.pictures.max()))

    def only(self, which: Tensor) -> "Views":
        """Some pictures, numbered anew; ``which`` ``(n * v,)`` says the same for all views of a picture."""
        rows = torch.nonzero(which).flatten()
        kept = rows.tolist()
        return Views(
            states=None if self.states is None else self.states[rows.to(self.states.device)],
            features=self.features[rows],
            labels=self.labels[rows],
            pictures=self.pictures[rows].unique(return_inverse=True)[1],
            layer=self.layer,
            reload=lambda asked: self.reload([kept[row] for row in asked]),
            precision=self.precision,
        )


@torch.no_grad()
def encode_views(
    backbone: Backbone,
    dataset: Dataset,
    examples: Sequence[Example],
    layer: int | None,
    *,
    views: int,
    augment: str,
    seed: int,
    precision: str = "float32",
    progress: Callable[[int, int], None] | None = None,
    decoded: Callable[[], None] | None = None,
) -> Views:
    """Run every view of every example through the frozen model once.

    Args:
        backbone: The frozen model.
        dataset: Where the pictures come from.
        examples: The support set, in order.
        layer: First adapted vision layer, None when the vision tower is not adapted.
        views: Views of each picture; the first is the picture itself.
        augment: Kind of augmentation.
        seed: Of the augmentation.
        precision: What forwards of an fp32 backbone are cast to; features and states stay fp32.
        progress: Told (done, total) in pictures times views.
        decoded: Told when the pictures of a block are there, and the model is to begin: other threads read ahead.
    """
    precision = precision if backbone.dtype == torch.float32 else "float32"  # a half one computes in its own type
    at = [(example, view) for view in range(views) for example in examples]

    def shown(row: int) -> Image.Image:
        example, view = at[row]
        return augmented(dataset.open(example), augment, seed, example.digest, view)

    def entering(images: Sequence[Image.Image], decoded: Callable[[], None] | None = None) -> Tensor:
        inputs = pixels(images, backbone.preprocessing).to(backbone.device)
        if decoded:
            decoded()
        with cast(backbone, precision):
            return enter(backbone, inputs, layer or 0)

    states: list[Tensor] = []
    features: list[Tensor] = []
    keep = layer is not None
    blocks = [range(start, min(start + BLOCK, len(at))) for start in range(0, len(at), BLOCK)]
    for rows, images in zip(blocks, made_ahead(shown, blocks), strict=True):
        entered = entering(images, decoded)
        with cast(backbone, precision):
            features.append(finish(backbone, entered, layer or 0))
        if keep and rows.start == 0:
            keep = entered[0].numel() * entered.element_size() * len(at) <= CACHE_BYTES
        if keep:
            states.append(entered)
        if progress:
            progress(rows.stop, len(at))
    return Views(
        states=torch.cat(states) if keep else None,
        features=torch.cat(features),
        labels=torch.tensor([example.label for example, _ in at], device=backbone.device),
        pictures=torch.tensor([row % len(examples) for row in range(len(at))], device=backbone.device),
        layer=layer,
        reload=lambda rows: entering([shown(row) for row in rows]),
        precision=precision,
    )


@torch.no_grad()
def carried(backbone: Backbone, views: Views, layer: int | None) -> Views:
    """The same views where they enter a higher layer, bitwise; the layers below are not run again.

    Args:
        backbone: The frozen model.
        views: Entering some vision layer.
        layer: That layer or one above it; None for a vision tower that is not adapted.
    """
    below, load = views.layer, views.reload
    if layer is None or below is None or layer == below:
        return replace(views, states=None if layer is None else views.states, layer=layer)

    def climbed(states: Tensor) -> Tensor:
        with cast(backbone, views.precision):
            return carry(backbone, states, below, layer)

    def upwards(rows: Sequence[int]) -> Tensor:
        return climbed(load(rows))

    count, states = len(views.labels), None
    if views.states is not None:
        blocks = [range(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK)]
        states = torch.cat([climbed(views.batch(rows)) for rows in blocks])
    return replace(views, states=states, layer=layer, reload=upwards)


def adapted_features(backbone: Backbone, views: Views) -> Tensor:
    """Unit rows ``(n * v, D)`` of all views through the model as it is now; the frozen ones where vision is frozen."""
    if views.layer is None:
        return views.features
    count = len(views.labels)
    blocks = [range(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK)]
    features: list[Tensor] = []
    with class_token_alone(backbone):
        for rows in blocks:
            with cast(backbone, views.precision):
                features.append(finish(backbone, views.batch(rows), views.layer))
    return torch.cat(features)


def blocks_of(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Examples in the fixed blocks that every frozen forward uses."""
    for start in range(0, len(examples), BLOCK):
        yield examples[start : start + BLOCK]
