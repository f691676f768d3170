"""Stock PEFT tuners (Hugging Face ``peft``) on the same backbone: CLIP-LoRA, LoRA, SHiRA, Super-Tuning.

CLIP-LoRA (Zanella and Ben Ayed, 2024, arXiv 2405.18541): rank 2 on query, key and value of both towers, scale
``1 / sqrt(r)``, dropout 0.25 before the low-rank maps. SHiRA (arXiv 2406.13175): random fixed support of ``r (p + q)``
entries of a ``p x q`` matrix; rank 2 is 0.5 to 1 % of the matrices of a small tower, the paper's density. Super-Tuning
(arXiv 2607.09287): the 1 % of the largest weights.
"""

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.peers.answers import Answers
from benchmarks.peers.clip_svd import block_linears
from benchmarks.peers.in_backbone import HeadKind, Trained, answers_of, tuned
from benchmarks.peers.material import Material
from kusabi.backbones.backbone import Backbone
from kusabi.errors import AdapterError, listed

ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj", "query", "key", "value")
RANK, DROPOUT = 2, 0.25
SPARSITY = 0.99


def clip_lora(material: Material, head: HeadKind = "text") -> Answers:
    """LoRA in the setting of CLIP-LoRA."""
    return answers_of(material, tuned("clip_lora", material, clip_lora_layers, head))


def lora(material: Material, head: HeadKind = "text") -> Answers:
    """LoRA of rank 4 on every linear map of both towers, PEFT's defaults otherwise."""

    def choose(backbone: Backbone) -> Trained:
        return injected(backbone, _linears(backbone), lambda names: _peft().LoraConfig(r=4, target_modules=names))

    return answers_of(material, tuned("lora", material, choose, head))


def shira(material: Material, head: HeadKind = "text") -> Answers:
    """SHiRA with PEFT's random support on every linear map of both towers."""

    def configured(names: Sequence[str]) -> Any:
        return _peft().ShiraConfig(r=RANK, target_modules=names, random_seed=material.seed)

    def choose(backbone: Backbone) -> Trained:
        return injected(backbone, _linears(backbone), configured)

    # As torch does by default; said aloud, it does not warn.
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        return answers_of(material, tuned("shira", material, choose, head))


def super_tuning(material: Material, head: HeadKind = "text") -> Answers:
    """Super-Tuning on every linear map of both towers."""

    def configured(names: Sequence[str]) -> Any:
        return _peft("SupertuningConfig").SupertuningConfig(sparsity=SPARSITY, target_modules=names)

    def choose(backbone: Backbone) -> Trained:
        return injected(backbone, _linears(backbone), configured)

    return answers_of(material, tuned("super_tuning", material, choose, head))


def clip_lora_layers(backbone: Backbone) -> Trained:
    """Inject CLIP-LoRA's layers."""
    names = [name for name in _linears(backbone) if name.rpartition(".")[2] in ATTENTION_INPUTS]

    def configured(targets: Sequence[str]) -> Any:
        return _peft().LoraConfig(
            r=RANK, lora_alpha=1, use_rslora=True, lora_dropout=DROPOUT, target_modules=list(targets)
        )

    return injected(backbone, names, configured)


def injected(backbone: Backbone, names: Sequence[str], configured: Callable[[Sequence[str]], Any]) -> Trained:
    """Inject a tuner into a copy of the backbone.

    Args:
        backbone: Its module is changed.
        names: Linear maps to adapt, by their names in the module.
        configured: Makes PEFT's configuration for these names.

    Raises:
        AdapterError: When PEFT is missing, no map is named, or PEFT adapts others than those named.
    """
    if not names:
        raise AdapterError(f"{backbone.family}: no linear map of this model is of the kind that the method adapts")
    peft = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about how peft calls it
        model = peft.get_peft_model(backbone.module, configured(list(names)))
    reached = set(model.base_model.targeted_module_names)
    if reached != set(names):
        raise AdapterError(f"PEFT adapts other layers than asked: {listed(sorted(reached ^ set(names)))}")
    trained = [parameter for parameter in backbone.module.parameters() if parameter.requires_grad]
    for dropout in _dropouts(backbone.module):
        dropout.train()
    stored = sum(tensor.nbytes for tensor in peft.get_peft_model_state_dict(model).values())
    return Trained(trained, stored=stored)


def _dropouts(module: nn.Module) -> list[nn.Module]:
    """The tuner's own dropouts; those of the backbone stay off."""
    return [
        dropout
        for layer in module.modules()
        if isinstance(inner := getattr(layer, "lora_dropout", None), nn.ModuleDict)
        for dropout in inner.values()
    ]


def _linears(backbone: Backbone) -> list[str]:
    return [name for name, _ in block_linears(backbone)]


def _peft(needed: str = "get_peft_model") -> Any:
    try:
        peft = importlib.import_module("peft")
    except ImportError:
        raise AdapterError("this peer needs the package peft, which is missing; pip install kusabi[peft]") from None
    if not hasattr(peft, needed):
        raise AdapterError(f"this peft {peft.__version__} has no {needed}; pip install --upgrade kusabi[peft]")
    return peft
