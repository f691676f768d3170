"""Kusabi's own kinds and presets as methods, judged as stored, on the same views and steps as the peers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.cell import Cell
from benchmarks.peers.answers import Answers, now
from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter, pack, rounded
from kusabi.adapters.presets import spec_fields
from kusabi.backbones.prefix import finish
from kusabi.recipes.fit_support import card
from kusabi.recipes.judge import classifier
from kusabi.recipes.new_classes import joined, text_logits, weakened
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build, overlay
from kusabi.training.learn import learn, rescale
from kusabi.training.scale_choice import choose_scales

DENSITY = {"adapter": {"density": 0.005}}  # one budget for all: that of the default
ONE_BUDGET = ("shira-random", "shira-magnitude", "shira-snip", "super-tuning", "saft", "gps", "drop-and-grow")
AS_PUBLISHED = ("spiel", "so-paper", "so-bounded")
KINDS = ("lora", "supra", "houlsby", "sparse-adapter", "mosa")

OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "kusabi": ("Kusabi (default)", {}),
    "kusabi-rows": ("Kusabi, rows", {"adapter": {"granularity": "row"}}),
    "kusabi-text": ("Kusabi, text classifier", {"adapter": {"head": "text"}}),
    "kusabi-one-classifier": ("Kusabi without cross-fitting", {"safety": {"cross_fit": 0}}),
    "kusabi-head": ("Kusabi, classifier alone", {"safety": {"alpha": 0.0}}),
    **{f"kusabi:{name}": (f"Kusabi, {name}", overlay(spec_fields(name), DENSITY)) for name in (*ONE_BUDGET, *KINDS)},
    **{f"kusabi:{name}": (f"Kusabi, {name}", spec_fields(name)) for name in AS_PUBLISHED},
}


def spec_of(name: str, base: Mapping[str, Any]) -> AdaptSpec:
    """A method of ours as the spec of a cell."""
    return build(overlay(base, OURS[name][1]))


def run_ours(cell: Cell, spec: AdaptSpec, new_prompts: Sequence[Sequence[str]] = ()) -> Answers:
    """Train, store, answer: what ``kusabi adapt`` does, on a cell's shared views.

    Args:
        cell: What is shared.
        spec: The method.
        new_prompts: Of classes to answer as well that have no labelled picture.
    """
    cell = cell.carried(cell.first_layer(spec))
    began = now()
    setting, question = cell.setting(spec), cell.question
    learned = learn(setting, cell.views)
    scales = choose_scales(setting, cell.views)
    rescale(setting, cell.views, learned, scales.alpha, scales.head_alpha)
    seconds = now() - began
    about = card(
        question.backbone, question.dataset, question.split.support, question.prompts, setting.plan, spec, learned,
        scales,
    )  # fmt: skip
    whole = Adapter(learned.parts, learned.classifier, about)
    stored, adapter = len(pack(whole)[0]), rounded(whole)
    chances = probabilities(cell, adapter, new_prompts)
    trained = sum(map(len, adapter.parts)) + sum(tensor.numel() for tensor in adapter.head.values())
    return Answers(chances, trained, stored, seconds, {"alpha": scales.alpha, "head_alpha": scales.head_alpha})


@torch.no_grad()
def probabilities(cell: Cell, adapter: Adapter, new_prompts: Sequence[Sequence[str]] = ()) -> Any:
    """Of the query pictures, ``(m, C + N)``, by the adapter as stored; new classes join by the rule of the peers."""
    backbone, query = cell.question.backbone, cell.query

    def embedded() -> torch.Tensor:
        return torch.cat([finish(backbone, states, query.layer) for states in query.states.split(50)])

    head = classifier(backbone, adapter)
    with attached(backbone.module, *adapter.parts):
        features = embedded()
    # Row by row in the blocks of before: a product's last bits may depend on its height.
    logits = torch.cat([head(block) for block in features.split(50)])
    own = logits.double().softmax(dim=1).cpu().numpy()
    if not new_prompts:
        return own
    prompts = [*cell.question.prompts, *new_prompts]
    return joined(own, text_logits(backbone, weakened(adapter), prompts, embedded))
