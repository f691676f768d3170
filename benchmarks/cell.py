"""One task, shots and seed: what all trainings of it share, computed once, and the accuracy of each.

The frozen lower layers run once over the views and once over the query pictures, whatever is trained above them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kusabi.adapters.attach import attached
from kusabi.adapters.targets import plan
from kusabi.backbones.prefix import carry, enter, finish
from kusabi.backbones.preprocessing import pixels
from kusabi.evaluation.peers import class_mean, linear_probe
from kusabi.recipes.question import Question, pose
from kusabi.recipes.watch import silent
from kusabi.spec import AdaptSpec
from kusabi.training.depth_choice import goes_deep, open_depth
from kusabi.training.learn import Learned, Setting
from kusabi.training.placed import deepened
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, blocks_of, carried, encode_views


@dataclass(frozen=True)
class QuerySide:
    """Query pictures as the frozen layers see them: ``states`` enter layer ``layer``, ``features`` ``(m, D)``."""

    layer: int
    states: Tensor
    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Cell:
    """A question, its views, and its query side; ``deep``: the pictures send an adapter of open depth to all layers."""

    question: Question
    views: Views
    text: Tensor
    query: QuerySide
    deep: bool

    def setting(self, spec: AdaptSpec) -> Setting:
        """What a training of this cell needs, for a spec that differs in adapter and training alone."""
        found = self._settled(spec)
        assert found.plan.first_layer == {"vision": self.query.layer}, "a cell is carried to where a spec begins"
        return found

    def first_layer(self, spec: AdaptSpec) -> int:
        """Where the adapter of a spec begins."""
        return self._settled(spec).plan.first_layer["vision"]

    def _settled(self, spec: AdaptSpec) -> Setting:
        found = _setting(self.question, self.text, spec)
        return deepened(found) if self.deep and open_depth(spec) else found

    @torch.no_grad()
    def carried(self, layer: int, query: QuerySide | None = None) -> "Cell":
        """The same cell for specs whose adapters begin at a higher layer.

        Args:
            layer: That layer, or the cell's own.
            query: Of another cell that was carried there, to save computing it again.
        """
        backbone, own = self.question.backbone, self.query
        if layer == own.layer:
            return self
        if query is None:
            states = [carry(backbone, states, own.layer, layer) for states in own.states.split(50)]
            query = replace(own, layer=layer, states=torch.cat(states))
        return replace(self, views=carried(backbone, self.views, layer), query=query)

    @torch.no_grad()
    def logits(self, learned: Learned) -> Tensor:
        """Of the adapted model on the query pictures, ``(m, C)``."""
        backbone, query = self.question.backbone, self.query
        with attached(backbone.module, *learned.parts):
            blocks = [learned.prototypes(finish(backbone, states, query.layer)) for states in query.states.split(50)]
        return torch.cat(blocks)

    def accuracy(self, learned: Learned) -> float:
        """Of the adapted model on the query pictures."""
        return float((self.logits(learned).argmax(1) == self.query.labels).double().mean())

    def peers(self) -> dict[str, float]:
        """Zero-shot and the peers on frozen features."""
        features, labels, pictures = (
            self.views.features.double().cpu().numpy(), self.views.labels.cpu().numpy(),
            self.views.pictures.cpu().numpy(),
        )  # fmt: skip
        query, truth = self.query.features.double().cpu().numpy(), self.query.labels.cpu().numpy()
        classes = len(self.question.dataset.classes)
        scores: Mapping[str, Any] = {
            "zero_shot": query @ self.text.double().cpu().numpy().T,
            "class_mean": class_mean(features, labels, query, classes, groups=pictures),
            "linear_probe": linear_probe(features, labels, pictures, query, classes),
        }
        return {name: float((np.asarray(of).argmax(1) == truth).mean()) for name, of in scores.items()}


def open_cell(folder: Path, spec: AdaptSpec, query: QuerySide | None = None) -> Cell:
    """Everything that is computed once.

    Args:
        folder: Of the task's pictures.
        spec: Task, shots, seed, placement.
        query: Of another cell of the same task and placement, to save computing it again.
    """
    return cell_of(pose(str(folder), spec, device="cpu", threads=None, watch=silent), spec, query)


def cell_of(question: Question, spec: AdaptSpec, query: QuerySide | None = None) -> Cell:
    """The same from a question that is posed already."""
    with torch.no_grad():
        text = class_texts(question.backbone, question.prompts)
    asked = _setting(question, text, spec)
    deep = goes_deep(asked, question.dataset, question.split.support)[0]
    layer = 0 if deep and open_depth(spec) else question.plan.first_layer["vision"]
    views = encode_views(
        question.backbone, question.dataset, question.split.support, layer, views=spec.data.views,
        augment=spec.data.augment, seed=spec.seed, precision=question.precision,
    )  # fmt: skip
    if query is None or query.layer != layer:
        query = query_side(question, layer)
    return Cell(question, views, text, query, deep)


def _setting(question: Question, text: Tensor, spec: AdaptSpec) -> Setting:
    backbone = question.backbone
    targets = plan(backbone.module, backbone.blocks, spec.adapter)
    return Setting(backbone, question.prompts, text, targets, spec, question.precision, spec.data.shots)


@torch.no_grad()
def query_side(question: Question, layer: int) -> QuerySide:
    """Query pictures as the frozen layers see them, block by block."""
    backbone, states, features = question.backbone, [], []
    pictures = question.split.query  # type: ignore[union-attr]  # tasks of the benchmark hold pictures out
    for block in blocks_of(pictures):
        shown = pixels([question.dataset.open(picture) for picture in block], backbone.preprocessing)
        states.append(enter(backbone, shown.to(backbone.device), layer))
        features.append(finish(backbone, states[-1], layer))
    labels = torch.tensor([picture.label for picture in pictures])
    return QuerySide(layer, torch.cat(states), torch.cat(features), labels.to(backbone.device))
