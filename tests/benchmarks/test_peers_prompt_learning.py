import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peers.frozen_features import zero_shot
from benchmarks.peers.prompt_learning import coop, drift, kgcoop, starting_context, texts
from kusabi.backbones.digest import module_digest
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import BackboneError

WORDS = ("cat", "red plate", "dog")


@pytest.mark.parametrize(
    "kind", ["clip", "siglip", "siglip2", "metaclip_2", "altclip", "chinese_clip", "align", "dinov2+roberta"]
)
def test_the_templates_own_embeddings_give_the_templates_texts(kind, tiny):
    backbone = load_backbone(tiny(kind))
    context = nn.Parameter(starting_context(backbone))
    found = texts(backbone, context, WORDS)
    plain = backbone.embed_texts([f"a photo of a {words}" for words in WORDS])
    assert torch.allclose(found, plain, atol=1e-6)
    found[0, 0].backward()
    assert context.grad.abs().sum() > 0
    assert torch.equal(backbone.embed_texts(["a photo of a cat"]), backbone.embed_texts(["a photo of a cat"]))
    moved = texts(backbone, context + torch.linspace(0, 1, 16), WORDS)
    assert not torch.allclose(moved, plain, atol=1e-3)
    table = backbone.module.get_submodule("text_model").get_input_embeddings()
    assert not table._forward_hooks


def test_both_begin_at_zero_shot_when_its_prompts_are_the_template(material):
    plain = zero_shot(material).probabilities
    for method in (coop, kgcoop):
        found = method(material, steps=0).probabilities
        own = plain[:, :3] / plain[:, :3].sum(1, keepdims=True)
        assert np.allclose(found[:, :3] / found[:, :3].sum(1, keepdims=True), own, atol=1e-5)


def test_the_knowledge_guided_term_is_zero_at_the_start_and_keeps_the_context_near(material, monkeypatch):
    context = starting_context(material.backbone)
    anchors = material.text[:3]
    assert float(drift(texts(material.backbone, context, material.words), anchors)) == pytest.approx(0, abs=1e-6)
    angles = torch.tensor([0.3, 1.0])
    turned = torch.stack([angles.cos(), angles.sin()], 1)
    assert float(drift(turned, torch.tensor([[1.0, 0.0]] * 2))) == pytest.approx(1 - float(angles.cos().mean()))
    seen = {}
    for name, method in (("coop", coop), ("kgcoop", kgcoop)):
        kept = []
        monkeypatch.setattr(
            "benchmarks.peers.prompt_learning.texts", lambda b, c, w, kept=kept: kept.append(c) or texts(b, c, w)
        )
        method(material, steps=30)
        seen[name] = float(drift(texts(material.backbone, kept[-1].detach(), material.words), anchors))
    assert 0 < seen["kgcoop"] < 0.9 * seen["coop"]


def test_four_vectors_are_learned_and_the_text_tower_rests(material):
    before = module_digest(material.backbone.module)
    found = coop(material)
    assert found.trained == 4 * 16 and module_digest(material.backbone.module) == before
    assert not any(parameter.requires_grad for parameter in material.backbone.module.parameters())


def test_a_tokenizer_that_joins_context_and_class_is_refused(material, monkeypatch):
    tokenizer = material.backbone.tokenizer
    whole = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer), "__call__",
        lambda self, shown, **asked: whole(self, shown if isinstance(shown, str) else ["cat"], **asked),
    )  # fmt: skip
    with pytest.raises(BackboneError, match="joins it with the class words"):
        coop(material)
