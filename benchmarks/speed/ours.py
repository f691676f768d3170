"""Our side, through Kusabi's own code: views, classifier, support, updates, the last fit. Nothing is copied here.

A whole adaptation takes minutes, so its parts are measured: the frozen layers by the block, gradients by the picture,
and all that depends on how many classes and pictures there are at full size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.clock import now, seconds
from benchmarks.speed.conditions import SHOTS, VIEWS, Conditions
from benchmarks.speed.models import prompts_of
from benchmarks.speed.pictures import dataset_of, examples
from benchmarks.speed.record import Spread, spread
from kusabi.adapters.attach import attached
from kusabi.adapters.targets import plan
from kusabi.backbones.backbone import Backbone
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build
from kusabi.training.fit import FitState, Record
from kusabi.training.head import refit_like
from kusabi.training.learn import Setting, Start, learn, prototypes_of, starting
from kusabi.training.precision import resolve
from kusabi.training.support_choice import support_gradients
from kusabi.training.texts import class_texts
from kusabi.training.views import BLOCK, Views, adapted_features, encode_views


def spec_of(layers: str, *, steps: int, batch: int, precision: str = "float32", **adapter: Any) -> AdaptSpec:
    """The defaults on some layers of the vision tower."""
    return build(
        {
            "adapter": {"layers": layers, **adapter},
            "training": {"steps": steps, "batch_size": batch, "precision": precision},
            "data": {"shots": SHOTS, "views": VIEWS},
        }
    )


def setting_of(backbone: Backbone, classes: int, spec: AdaptSpec) -> Setting:
    """What ``kusabi adapt`` would make of the spec."""
    prompts, weights = prompts_of(classes), plan(backbone.module, backbone.blocks, spec.adapter)
    with torch.no_grad():
        text = class_texts(backbone, prompts)
    precision = resolve(spec.training.precision, str(backbone.device))
    return Setting(backbone, prompts, text, weights, spec, precision, SHOTS)


def encoded(setting: Setting, pictures: int) -> tuple[Views, list[float]]:
    """Views of some of the pictures, and the seconds of every block of the frozen layers."""
    classes, device = len(setting.prompts), setting.backbone.device
    support = examples(classes, -(-pictures // classes))[:pictures]
    marks = [now(device)]
    views = encode_views(
        setting.backbone, dataset_of(classes, support), support, setting.plan.first_layer["vision"],
        views=setting.spec.data.views, augment=setting.spec.data.augment, seed=0,
        precision=setting.precision,
        progress=lambda *_: marks.append(now(device)),
    )  # fmt: skip
    return views, np.diff(marks).tolist()


def at_full_size(setting: Setting, features: Tensor) -> Views:
    """Features as of all views of all pictures, of the kind that tells classes apart; without activations."""
    classes = len(setting.prompts)
    labels = torch.arange(classes * SHOTS).div(SHOTS, rounding_mode="floor").repeat(VIEWS)
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, features.shape[1], generator=random)
    rows = centres[labels] + 1.5 * torch.randn(len(labels), features.shape[1], generator=random)
    device = setting.backbone.device
    return Views(
        None, torch.nn.functional.normalize(rows, dim=-1).to(device), labels.to(device),
        torch.arange(classes * SHOTS).repeat(VIEWS).to(device), None, lambda _: rows,
    )  # fmt: skip


def without_cache(views: Views, pixels: Tensor, enter: Callable[[Tensor], Tensor]) -> Views:
    """The same views, whose pictures run through the model anew at every update."""
    return Views(
        None, views.features, views.labels, views.pictures, views.layer, lambda rows: enter(pixels[list(rows)])
    )


@dataclass(frozen=True)
class Updates:
    """Seconds of making the parts, of an update, and of one of each peer that took turns with ours."""

    birth: float
    step: Spread
    peers: Mapping[str, Spread]
    closing: float  # features of the measured views through the adapted model


def updates(
    setting: Setting, views: Views, start: Start | None, peers: Mapping[str, Callable[[], object]], *, warm: int = 1
) -> Updates:
    """Train for as many updates as the spec says; after each of ours every peer takes one of its own."""
    device = setting.backbone.device
    own: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in peers}
    marks = [now(device)]

    def begin(_: FitState) -> None:
        marks.append(now(device))

    def each(_: FitState, record: Record) -> None:
        own.append(now(device) - marks[-1])
        for name, step in peers.items():
            others[name].append(seconds(step, device))
        marks.append(now(device))

    learned = learn(setting, views, start=start, begin=begin, each=each)
    with attached(setting.backbone.module, *learned.parts):
        closing = seconds(lambda: adapted_features(setting.backbone, views), device)
    return Updates(
        marks[1] - marks[0], spread(own[warm:]), {name: spread(of[warm:]) for name, of in others.items()}, closing
    )


@dataclass(frozen=True)
class Adaptation:
    """What a whole adaptation is made of, in seconds; ``blocks`` hold all views."""

    once: float
    block: Spread
    blocks: int
    birth: float
    closing: float
    updates: Updates

    def total(self, steps: int) -> float:
        """Seconds of all of it with so many updates."""
        return (
            self.once + self.block.median * self.blocks + self.birth + steps * self.updates.step.median + self.closing
        )


def adaptation(
    backbone: Backbone, classes: int, spec: AdaptSpec, conditions: Conditions, peers: Mapping[str, Callable[[], object]]
) -> Adaptation:
    """Measure the parts of an adaptation to ``classes`` times ``SHOTS`` pictures."""
    device = backbone.device
    began = now(device)
    setting = setting_of(backbone, classes, spec)
    once = now(device) - began
    shown = min(conditions.pictures, classes * SHOTS)  # a row of these is one of the classifiers', too
    views, blocks = encoded(setting, shown)
    full = at_full_size(setting, views.features)
    began = now(device)
    start = starting(setting, full)
    once += now(device) - began
    taken = updates(setting, views, start, peers)
    head = start.head
    assert head is not None
    arrays: Sequence[Any] = full.features.double().cpu().numpy(), full.labels.cpu().numpy()
    text = setting.text.double().cpu().numpy()
    once += seconds(lambda: refit_like(head, *arrays, text), device)
    more = classes * SHOTS / shown
    classifier = start.against or prototypes_of(setting, start.head)
    gradients = seconds(
        lambda: support_gradients(backbone, views, classifier, setting.prompts, setting.plan, setting.precision), device
    )
    birth = max(taken.birth - gradients, 0.0) + more * gradients  # ranking entries takes as long for any number of them
    return Adaptation(once, spread(blocks[1:]), -(-len(full.labels) // BLOCK), birth, taken.closing * more, taken)
