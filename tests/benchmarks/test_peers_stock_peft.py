import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from benchmarks.peers import PEERS
from benchmarks.peers.stock_peft import clip_lora_layers, injected
from kusabi.backbones.digest import module_digest
from kusabi.errors import AdapterError

NEEDING = sorted(name for name, peer in PEERS.items() if peer.needs_peft)


@pytest.mark.parametrize("name", NEEDING)
def test_a_missing_peft_is_told_with_what_to_do(name, material, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AdapterError, match=r"needs the package peft, which is missing; pip install kusabi\[peft\]"):
        PEERS[name].run(material)


def test_an_older_peft_without_a_tuner_is_told(material, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace(__version__="0.18.0", get_peft_model=None))
    with pytest.raises(AdapterError, match=r"this peft 0.18.0 has no SupertuningConfig; pip install --upgrade"):
        PEERS["super_tuning"].run(material)


@pytest.mark.parametrize("name", NEEDING)
def test_the_backbone_is_bitwise_the_same_after_stock_peft(name, gathered):
    pytest.importorskip("peft")
    material = gathered(shots=1 if name.endswith("prototypes") else 4)
    before, types = module_digest(material.backbone.module), [type(m) for m in material.backbone.module.modules()]
    found = PEERS[name].run(material)
    assert module_digest(material.backbone.module) == before
    assert types == [type(m) for m in material.backbone.module.modules()]
    assert np.array_equal(PEERS[name].run(material).probabilities, found.probabilities)
    assert np.allclose(found.probabilities.sum(1), 1)


def vit_b16():
    """CLIP ViT-B/16's shapes without its weights."""
    layers = {"num_hidden_layers": 12}
    config = transformers.CLIPConfig(
        vision_config={**layers, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "patch_size": 16,
        },
        text_config={**layers, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
        projection_dim=512,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.CLIPModel(config).requires_grad_(False)
    blocks = {tower: [f"{tower}_model.encoder.layers.{i}" for i in range(12)] for tower in ("vision", "text")}
    return SimpleNamespace(module=model, blocks=blocks, family="clip")


def test_clip_lora_trains_184320_numbers_of_vit_b16_as_its_paper_says():
    pytest.importorskip("peft")
    trained = clip_lora_layers(vit_b16())
    assert sum(p.numel() for p in trained.parameters) == 184_320 and trained.stored == 4 * 184_320


def test_clip_lora_has_the_papers_scale_and_dropout_and_leaves_the_models_own_dropouts_off(gathered):
    pytest.importorskip("peft")
    from copy import deepcopy

    for kind in ("clip", "chinese_clip"):
        module = deepcopy(gathered(kind).backbone.module)
        backbone = SimpleNamespace(module=module, blocks=gathered(kind).backbone.blocks, family=kind)
        clip_lora_layers(backbone)
        layers = [m for m in module.modules() if hasattr(m, "lora_A")]
        assert len(layers) == (3 + 2) * 3 and all(m.scaling["default"] == pytest.approx(2**-0.5) for m in layers)
        awake = [m for m in module.modules() if isinstance(m, torch.nn.Dropout) and m.training]
        assert len(awake) == len(layers) and {m.p for m in awake} == {0.25}


def test_adapting_other_layers_than_asked_is_refused(gathered):
    peft = pytest.importorskip("peft")
    from copy import deepcopy

    own = gathered().backbone
    backbone = SimpleNamespace(module=deepcopy(own.module), blocks=own.blocks, family="clip")
    asked = ["vision_model.encoder.layers.0.self_attn.q_proj"]
    with pytest.raises(AdapterError, match="PEFT adapts other layers than asked"):
        injected(backbone, asked, lambda names: peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match="no linear map of this model"):
        injected(backbone, [], lambda names: None)
