from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from benchmarks.peers import PEERS
from benchmarks.peers.clip_svd import block_linears, decomposed, singular_values
from benchmarks.peers.frozen_features import zero_shot
from benchmarks.peers.full_fine_tuning import everything, full_fine_tuning, interpolate, wise_ft
from benchmarks.peers.in_backbone import answers_of, tuned
from benchmarks.peers.small_parts import biases, layer_norms
from benchmarks.peers.two_stage import two_stage
from kusabi.backbones.digest import module_digest
from kusabi.errors import BackboneError
from kusabi.training.head import fit_head

OWN = sorted(name for name, peer in PEERS.items() if not peer.needs_peft)
IN_BACKBONE = {"layer_norm": layer_norms, "bitfit": biases, "clip_svd": singular_values, "full": everything}


@pytest.mark.parametrize("name", OWN)
def test_the_backbone_is_bitwise_the_same_after_every_method_and_a_second_run_too(name, gathered):
    material = gathered(shots=1 if name.endswith("prototypes") else 4)  # with one picture nothing is cross-validated
    before, flags = (
        module_digest(material.backbone.module),
        [p.requires_grad for p in material.backbone.module.parameters()],
    )
    found = PEERS[name].run(material)
    assert module_digest(material.backbone.module) == before
    assert flags == [p.requires_grad for p in material.backbone.module.parameters()]
    assert all(p.grad is None for p in material.backbone.module.parameters())
    assert found.probabilities.shape == (12, 4) and np.allclose(found.probabilities.sum(1), 1)
    assert (found.trained > 0) == (name not in ("zero_shot", "tip_adapter")) and found.stored >= 4 * found.trained
    assert np.array_equal(PEERS[name].run(material).probabilities, found.probabilities)


@pytest.mark.parametrize("name", sorted(IN_BACKBONE))
def test_the_loss_falls_and_only_what_is_trained_moves(name, material):
    model = tuned(name, replace(material, steps=25, batch_size=24), IN_BACKBONE[name])
    assert model.losses[-1] < model.losses[0]
    trained = {"layer_norm": "norm", "bitfit": "bias", "clip_svd": "weight", "full": ""}[name]
    tensors = zip(model.backbone.module.named_parameters(), material.backbone.module.parameters(), strict=True)
    moved = {n for (n, after), before in tensors if not torch.equal(after, before)}
    assert moved and all(trained in n and "logit_scale" not in n for n in moved)
    assert any("vision" in n for n in moved) and any("text" in n for n in moved)


@pytest.mark.parametrize("name", ["layer_norm", "bitfit", "clip_svd", "full", "wise_ft", "two_stage"])
def test_without_a_step_it_answers_as_zero_shot(name, material):
    still = replace(material, steps=0)
    assert np.allclose(PEERS[name].run(still).probabilities, zero_shot(material).probabilities, atol=1e-6)


def test_layer_norms_are_counted_by_their_names_in_the_state(material):
    state = material.backbone.module.state_dict()
    expected = sum(t.numel() for name, t in state.items() if "norm" in name or "layrnorm" in name)
    counted = sum(p.numel() for p in layer_norms(material.backbone).parameters)
    assert counted == expected == 2 * 16 * (2 + 3 * 2 + 2 * 2 + 1)
    bias = sum(t.numel() for name, t in state.items() if name.endswith(".bias"))
    assert sum(p.numel() for p in biases(material.backbone).parameters) == bias
    assert sum(p.numel() for p in everything(material.backbone).parameters) == sum(
        p.numel() for p in material.backbone.module.parameters()
    ) - 1  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "dinov2+roberta"])
def test_singular_values_rebuild_their_weights_and_are_as_many_as_the_matrices_have(kind, gathered):
    backbone = gathered(kind).backbone
    parts = decomposed(backbone)
    for part in parts:
        assert torch.allclose((part.left * part.values) @ part.right, part.first, atol=1e-5)
        first = part.weight.clone()
        part.fold()
        assert torch.equal(part.weight, first)
    # Three vision and two text layers: q, k, v, out and two MLP matrices, whose smaller side is 16.
    assert sum(part.shift.numel() for part in parts) == (3 + 2) * 6 * 16
    assert len({name for name, _ in block_linears(backbone)}) == 30


def test_a_singular_values_gradient_is_that_of_the_decomposed_weight(material):
    part = decomposed(material.backbone)[4]
    x = torch.randn(7, part.first.shape[1], generator=torch.Generator().manual_seed(0))
    values = part.values.clone().requires_grad_()
    linear(x, (part.left * values) @ part.right).tanh().sum().backward()
    weight = part.first.clone().requires_grad_()
    linear(x, weight).tanh().sum().backward()
    stand_in = replace(part, weight=torch.nn.Parameter(part.first.clone()))
    stand_in.weight.grad = weight.grad.clone()
    stand_in.fetch()
    assert torch.allclose(stand_in.shift.grad, values.grad, atol=1e-4) and stand_in.weight.grad is None
    stand_in.shift.data.fill_(0.25)
    stand_in.fold()
    assert torch.allclose(stand_in.weight, (part.left * (part.values + 0.25)) @ part.right, atol=1e-5)


def test_wise_ft_ends_at_zero_shot_and_at_the_tuned_model(material):
    plain, full = zero_shot(material).probabilities, full_fine_tuning(material).probabilities
    assert np.allclose(wise_ft(material, share=0.0).probabilities, plain, atol=1e-6)
    assert np.array_equal(wise_ft(material, share=1.0).probabilities, full)
    model = tuned("full", material, everything)
    tuned_weights = {n: p.clone() for n, p in model.backbone.module.named_parameters()}
    interpolate(material.backbone, model, 0.5)
    for name, p in model.backbone.module.named_parameters():
        assert torch.allclose(p, (tuned_weights[name] + material.backbone.module.get_parameter(name)) / 2, atol=1e-7)


def test_two_stages_share_the_steps_six_to_four_and_keep_new_classes_as_tuned(material, monkeypatch):
    asked = []

    def counting(name, material, groups, loss_of, *, steps=None, **more):
        asked.append((name, steps, sum(p.numel() for g in groups for p in g.parameters)))
        return []

    monkeypatch.setattr("benchmarks.peers.two_stage.descend", counting)
    monkeypatch.setattr("benchmarks.peers.in_backbone.descend", counting)
    found = two_stage(replace(material, steps=100))
    assert asked == [("two_stage", 60, 416), ("2SFS", 40, 3 * 12)] and found.trained == 416 + 36


def test_prototypes_begin_at_our_head_on_the_frozen_features(material):
    still = replace(material, steps=0, new_prompts=(), text=material.text[:3])
    views = material.views
    arrays = (views.features.double().numpy(), views.labels.numpy(), views.pictures.numpy())
    head = fit_head(*arrays, material.text[:3].double().numpy())
    logits = torch.from_numpy(material.query.double().numpy() @ head.weights.T + head.offsets)
    found = answers_of(still, tuned("layer_norm", still, layer_norms, "prototypes"))
    assert np.allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-4)
    assert found.trained == 416 + 3 * 12 + 3 + 1


def test_weights_of_another_type_are_refused(material):
    half = replace(material, backbone=replace(material.backbone, dtype=torch.bfloat16))
    with pytest.raises(BackboneError, match="layer_norm trains weights in place: load the backbone with dtype float32"):
        PEERS["layer_norm"].run(half)
