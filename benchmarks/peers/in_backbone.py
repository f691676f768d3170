"""What all methods that train inside the backbone share: a copy to train in, the classifier, the descent, the answers.

They train a copy, so that the backbone itself is bitwise the same afterwards, whatever happens. Forwards see whole
pictures: most of these methods train down to the first layer, where no prefix is left to cache. Precision and attention
are those of our own training: in half precision on a CPU, torch's fused attention would cost them half as much again.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend, seeded
from benchmarks.peers.material import Material, Pixels
from benchmarks.peers.settings import SETTINGS
from kusabi.adapters.prototypes import Prototypes
from kusabi.backbones.backbone import Backbone
from kusabi.errors import BackboneError
from kusabi.training.head import Head, fit_head
from kusabi.training.precision import cast
from kusabi.training.texts import class_texts

HeadKind = Literal["text", "prototypes"]


@dataclass(frozen=True)
class Trained:
    """What a method trains in its copy of the backbone.

    ``before_update`` and ``after_update`` are for parameters that stand for others: they fetch gradients and fold
    values. ``stored`` is in bytes; four for every number when None.
    """

    parameters: Sequence[nn.Parameter]
    before_update: Callable[[], None] | None = None
    after_update: Callable[[], None] | None = None
    stored: int | None = None


@dataclass
class Tuned:
    """A trained copy and its classifier: ``head`` is None where the texts alone classify."""

    backbone: Backbone
    trained: Trained
    prototypes: Prototypes
    head: Head | None
    started: float
    losses: list[float]


def tuned(
    name: str, material: Material, choose: Callable[[Backbone], Trained], head: HeadKind = "text",
    steps: int | None = None,
) -> Tuned:  # fmt: skip
    """Train a copy of the backbone.

    Args:
        name: The method, as ``SETTINGS`` calls it.
        material: What is learned from.
        choose: Prepares the copy and says what is trained in it.
        head: ``text``: class texts classify, encoded anew at every step. ``prototypes``: ours, fitted on the frozen
            features and trained along, as in ``kusabi.training.learn``.
        steps: Updates, if not as many as the material says.

    Raises:
        BackboneError: When the weights are not float32.
        AdapterError: When a loss is not finite.
    """
    started = now()
    if material.backbone.dtype != torch.float32:
        raise BackboneError(f"{name} trains weights in place: load the backbone with dtype float32")
    with seeded(material):
        own = replace(material.backbone, module=deepcopy(material.backbone.module))
        trained = choose(own)
        for parameter in trained.parameters:
            parameter.requires_grad_()
        prototypes, fitted = _classifier(material, head)
        groups = [Group(trained.parameters, SETTINGS[name])]
        if fitted is not None:
            groups.append(Group(list(prototypes.parameters()), SETTINGS["prototypes"]))
        labels = material.views.labels

        def loss_of(rows: Tensor) -> Tensor:
            pixels = material.view_pixels.batch(rows.tolist()).to(own.device)
            with cast(own, material.precision):
                images, text = own.embed_images(pixels), class_texts(own, material.prompts)
            return F.cross_entropy(prototypes(images, text), labels[rows])

        losses = descend(
            name, material, groups, loss_of, steps=steps, before_update=trained.before_update,
            after_update=trained.after_update,
        )  # fmt: skip
    own.module.eval().requires_grad_(False)
    return Tuned(own, trained, prototypes.requires_grad_(False), fitted, started, losses)


@torch.no_grad()
def answers_of(material: Material, model: Tuned) -> Answers:
    """Answer the query."""
    learned = now()
    features, text = embedded(model.backbone, material.query_pixels), class_texts(model.backbone, material.all_prompts)
    count = sum(parameter.numel() for parameter in model.trained.parameters)
    stored = FLOAT * count if model.trained.stored is None else model.trained.stored
    if model.head is not None:
        count_head = sum(parameter.numel() for parameter in model.prototypes.parameters())
        count, stored = count + count_head, stored + FLOAT * count_head
    return answered(
        model.prototypes(features, text[: material.classes]), material.backbone.scale * features @ text.T,
        trained=count, stored=stored, started=model.started, learned=learned,
    )  # fmt: skip


@torch.no_grad()
def embedded(backbone: Backbone, pictures: Pixels) -> Tensor:
    """Unit features ``(n, D)`` of all pictures."""
    return torch.cat([backbone.embed_images(block) for block in pictures.blocks()])


def _classifier(material: Material, head: HeadKind) -> tuple[Prototypes, Head | None]:
    """Zero-shot, or our head on the frozen features."""
    text, views, backbone = material.text[: material.classes], material.views, material.backbone
    prototypes = Prototypes(text, backbone.scale).to(backbone.device)
    if head == "text":
        return prototypes.requires_grad_(False), None
    fitted = fit_head(
        views.features.double().cpu().numpy(), views.labels.cpu().numpy(), views.pictures.cpu().numpy(),
        text.double().cpu().numpy(),
    )  # fmt: skip
    _place(prototypes, fitted, text)
    return prototypes, fitted


def _place(prototypes: Prototypes, head: Head, text: Tensor) -> None:
    """Put the classifier at a fitted head."""
    weights, offsets = (torch.from_numpy(part).float().to(text.device) for part in (head.weights, head.offsets))
    scale = max(float(weights.norm(dim=1).mean()), 1e-3)
    prototypes.place(weights / scale, offsets / scale, scale, text)
