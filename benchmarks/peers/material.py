"""All that a peer may see: the backbone, the labelled pictures and their views, the class texts, the query pictures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kusabi.backbones.backbone import Backbone
from kusabi.backbones.preprocessing import pixels
from kusabi.data.augmentation import augmented
from kusabi.data.dataset import Dataset, Example
from kusabi.training.texts import class_texts
from kusabi.training.views import BLOCK, Views, encode_views

Prompts = Sequence[Sequence[str]]

KEPT_BYTES = 3 * 2**30  # pixels above it are read again every time

PROJECTIONS = ("visual_projection",)
"""Last linear map of a vision tower; SigLIP and ALIGN have none."""


class Pixels:
    """Pixels of numbered pictures; read once, then kept.

    Args:
        count: How many pictures there are.
        read: Pixels ``(3, S, S)`` of one of them.
    """

    def __init__(self, count: int, read: Callable[[int], Tensor]) -> None:
        self.count = count
        self._read = read
        self._kept: dict[int, Tensor] = {}

    def batch(self, rows: Sequence[int]) -> Tensor:
        """Pixels ``(len(rows), 3, S, S)``, on the CPU."""
        return torch.stack([self._one(row) for row in rows])

    def blocks(self) -> Iterator[Tensor]:
        """All pictures in order, in the blocks of every frozen forward."""
        for start in range(0, self.count, BLOCK):
            yield self.batch(range(start, min(start + BLOCK, self.count)))

    def _one(self, row: int) -> Tensor:
        if row in self._kept:
            return self._kept[row]
        fresh = self._read(row)
        if fresh.nbytes * self.count <= KEPT_BYTES:
            self._kept[row] = fresh
        return fresh


@dataclass(frozen=True, eq=False)
class Material:
    """``n`` labelled pictures in ``v`` views, ``m`` query pictures, ``C`` classes with pictures and ``N`` without.

    ``views`` and ``view_pixels`` have the same rows. ``query`` ``(m, D)`` are frozen unit features; ``pooled`` are the
    inputs ``(n * v, W)`` and ``(m, W)`` of the vision tower's last linear map, None where it has none. ``text``
    ``(C + N, D)`` are frozen unit texts. ``words`` are what prompt learning calls the classes. ``shots`` are labelled
    pictures a class.
    """

    backbone: Backbone
    views: Views
    view_pixels: Pixels
    query: Tensor
    query_pixels: Pixels
    pooled: tuple[Tensor, Tensor] | None
    prompts: Prompts
    new_prompts: Prompts
    words: Sequence[str]
    text: Tensor
    shots: int
    seed: int
    steps: int
    batch_size: int
    precision: str

    @property
    def classes(self) -> int:
        """Classes with pictures."""
        return len(self.prompts)

    @property
    def all_prompts(self) -> Prompts:
        """Prompts of the classes with pictures, then of the new ones."""
        return (*self.prompts, *self.new_prompts)

    @property
    def new_words(self) -> Sequence[str]:
        """Words of the new classes: their first prompts."""
        return tuple(of_class[0] for of_class in self.new_prompts)

    @property
    def pictures(self) -> int:
        """Labelled pictures."""
        return int(self.views.pictures.max()) + 1


@torch.no_grad()
def gather(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], query: Sequence[Example], prompts: Prompts, *,
    shots: int, seed: int, steps: int = 100, batch_size: int = 16, views: int = 4, augment: str = "safe",
    precision: str = "float32", new_prompts: Prompts = (), words: Sequence[str] | None = None,
    query_dataset: Dataset | None = None,
) -> Material:  # fmt: skip
    """Run every view and every query picture through the frozen model once; all peers share what comes out.

    Args:
        backbone: The frozen model.
        dataset: Where the labelled pictures come from.
        support: They themselves; their labels number the prompts.
        query: Pictures to answer.
        prompts: Of every class that has labelled pictures.
        shots: Labelled pictures a class.
        seed: Of views, batches and starting values.
        steps: Updates of every method that descends a gradient in batches.
        batch_size: Views in each.
        views: Of each labelled picture; the first is the picture itself.
        augment: Kind of augmentation.
        precision: What forwards of a training are cast to; see ``kusabi.training.precision``.
        new_prompts: Of classes to answer as well that have no labelled picture (base-to-new).
        words: What each class with pictures is called, for prompt learning; its first prompt when absent.
        query_dataset: Where the query pictures come from, if not from the same.
    """
    with _caught(backbone) as before:
        frozen = encode_views(backbone, dataset, support, None, views=views, augment=augment, seed=seed)
    shown = query_dataset or dataset
    view_pixels = Pixels(len(frozen.labels), _viewed(backbone, dataset, support, augment, seed))
    for _ in view_pixels.blocks():  # read now: no peer's seconds are to hold it
        pass
    query_pixels = Pixels(len(query), lambda row: pixels([shown.open(query[row])], backbone.preprocessing)[0])
    with _caught(backbone) as query_before:
        features = torch.cat([backbone.embed_images(block) for block in query_pixels.blocks()])
    return Material(
        backbone=backbone,
        views=frozen,
        view_pixels=view_pixels,
        query=features,
        query_pixels=query_pixels,
        pooled=(torch.cat(before), torch.cat(query_before)) if before else None,
        prompts=prompts,
        new_prompts=new_prompts,
        words=words if words is not None else tuple(of_class[0] for of_class in prompts),
        text=class_texts(backbone, (*prompts, *new_prompts)),
        shots=shots,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        precision=precision,
    )


def _viewed(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], augment: str, seed: int
) -> Callable[[int], Tensor]:
    def read(row: int) -> Tensor:
        view, picture = divmod(row, len(support))
        example = support[picture]
        image = augmented(dataset.open(example), augment, seed, example.digest, view)
        return pixels([image], backbone.preprocessing)[0]

    return read


def projection(module: nn.Module) -> nn.Linear | None:
    """The last linear map of the vision tower; None where features do not come straight out of one."""
    found = (getattr(module, name, None) for name in PROJECTIONS)
    return next((layer for layer in found if isinstance(layer, nn.Linear)), None)


@contextmanager
def _caught(backbone: Backbone) -> Iterator[list[Tensor]]:
    """What enters the last linear map of the vision tower meanwhile, block by block."""
    caught: list[Tensor] = []
    layer = projection(backbone.module)
    if layer is None:
        yield caught
        return

    def catch(_layer: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0].float())

    hook = layer.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        hook.remove()


def projected(pooled: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Unit features ``(n, D)`` from what enters the last linear map, ``(n, W)``."""
    return F.normalize(F.linear(pooled, weight, bias), dim=-1)
