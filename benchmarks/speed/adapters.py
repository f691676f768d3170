"""Adapters as after a training, ours and PEFT's, on the same weights: their values do not matter for time."""

import warnings
from copy import deepcopy
from typing import Any

import peft
import torch

from benchmarks.speed.models import prompts_of
from benchmarks.speed.ours import setting_of, spec_of
from benchmarks.speed.peers import CONFIGURED, linears
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.backbones.backbone import Backbone
from kusabi.data.dataset import Dataset
from kusabi.recipes.fit_support import card
from kusabi.training.birth import Birth, fresh_parts
from kusabi.training.learn import Learned, prototypes_of
from kusabi.training.scale_choice import Scales

CLASSES = 10


def ours(backbone: Backbone, density: float, tower: str = "both") -> Adapter:
    """A sparse delta on every linear map, at random positions that no seed gives again."""
    spec = spec_of("all", steps=1, batch=1, tower=tower, density=density, support_rule="magnitude")
    setting = setting_of(backbone, CLASSES, spec)
    (part,) = fresh_parts(Birth(backbone, setting.plan, spec, None))
    assert isinstance(part, SparseDelta)
    part.values.data.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    prototypes = prototypes_of(setting, None)
    learned = Learned((part,), prototypes, None, {}, 1, False)
    dataset = Dataset("generated", tuple(f"kind {n}" for n in range(CLASSES)), (), (), (), "generated", _nothing)
    about = card(backbone, dataset, (), prompts_of(CLASSES), setting.plan, spec, learned, Scales(1.0, 1.0, {}))
    return Adapter((part,), dict(prototypes.named_parameters()), about)


def peft_model(method: str, backbone: Backbone, tower: str = "both") -> Any:
    """A copy of the module as PEFT's own model, its trained numbers filled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about how peft calls it
        model = peft.get_peft_model(deepcopy(backbone.module), CONFIGURED[method](linears(backbone, tower=tower)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.01)
    return model.eval()


def _nothing(file: str) -> Any:
    raise AssertionError(file)
