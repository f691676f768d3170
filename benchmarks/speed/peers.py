"""The other side: stock PEFT and full fine-tuning on a copy of the same model, their pixels decoded before the clock.

Each is what its authors do: AdamW, the class texts as classifier, encoded at every update where the text tower learns
(CLIP-LoRA pads its prompts to the full 77 tokens), once where it does not.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import peft
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers.full_fine_tuning import everything
from benchmarks.peers.in_backbone import Trained
from benchmarks.peers.settings import SETTINGS
from benchmarks.peers.stock_peft import clip_lora_layers, injected
from benchmarks.speed.clock import now
from benchmarks.speed.models import prompts_of
from kusabi.adapters.targets import plan
from kusabi.backbones.backbone import Backbone
from kusabi.spec import AdapterSpec
from kusabi.training.precision import autocast
from kusabi.training.texts import class_texts

RANK = 4


@dataclass(frozen=True)
class Peer:
    """A training that is ready: seconds it took to get there, trained numbers, and one update of it."""

    setup: float
    trained: int
    step: Callable[[], Tensor]
    backbone: Backbone


def linears(backbone: Backbone, *, tower: str = "vision", layers: str = "all") -> list[str]:
    """Linear maps on the same weights that our adapter would sit on."""
    targets = plan(backbone.module, backbone.blocks, AdapterSpec.model_validate({"tower": tower, "layers": layers}))
    return [target.tensor.removesuffix(".weight") for target in targets.targets]


def lora(names: Sequence[str]) -> Any:
    """PEFT's defaults but for the rank."""
    return peft.LoraConfig(r=RANK, target_modules=list(names))


def shira(names: Sequence[str]) -> Any:
    """Of the same rank, which is the same budget by its own definition, and its random support."""
    return peft.ShiraConfig(r=RANK, target_modules=list(names), random_seed=0)


def super_tuning(names: Sequence[str]) -> Any:
    """PEFT's defaults: the 1 % of the largest weights."""
    configured: Any = peft.SupertuningConfig
    return configured(sparsity=0.99, target_modules=list(names))


CONFIGURED: dict[str, Callable[[Sequence[str]], Any]] = {"lora": lora, "shira": shira, "super_tuning": super_tuning}


def _trained(method: str, backbone: Backbone, names: Sequence[str]) -> Trained:
    """Prepare a copy of the backbone for a method."""
    if method == "full":
        return everything(backbone)
    return clip_lora_layers(backbone) if method == "clip_lora" else injected(backbone, names, CONFIGURED[method])


METHODS = (*CONFIGURED, "clip_lora", "full")
BOTH_TOWERS = ("clip_lora", "full")


def peer(
    method: str, backbone: Backbone, names: Sequence[str], pixels: Tensor, labels: Tensor, *, classes: int, batch: int,
    precision: str = "float32",
) -> Peer:  # fmt: skip
    """A training of a method in a copy of the backbone.

    Args:
        method: One of ``METHODS``.
        backbone: Left as it is; padded to its full text length where the text tower learns, as CLIP-LoRA does.
        names: Linear maps to adapt, for methods that are told.
        pixels: Decoded views ``(n, 3, S, S)``.
        labels: Class of each, ``(n,)``.
        classes: Prompts to encode.
        batch: Views an update.
        precision: What forwards are cast to.
    """
    own = replace(backbone, module=deepcopy(backbone.module), full_length=method in BOTH_TOWERS)
    prompts, device = prompts_of(classes), backbone.device
    pixels, labels = pixels.to(device), labels.to(device)
    began = now(device)
    trained = _trained(method, own, names)
    for parameter in trained.parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(trained.parameters, lr=SETTINGS[method].rate)
    with torch.no_grad():
        frozen = class_texts(own, prompts)
    setup = now(device) - began
    order = iter(lambda: torch.randint(len(labels), (batch,), device=device), None)

    def step() -> Tensor:
        rows = next(order)
        with autocast(precision, str(device)):
            images = own.embed_images(pixels[rows])
            text = class_texts(own, prompts) if method in BOTH_TOWERS else frozen
            logits = own.scale * images @ text.T
        loss = F.cross_entropy(logits.float(), labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return Peer(setup, sum(parameter.numel() for parameter in trained.parameters), step, own)
