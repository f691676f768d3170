from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.peers.clip_adapter import Bottleneck, clip_adapter
from benchmarks.peers.frozen_features import class_mean, linear_probe, picture_features, zero_shot
from benchmarks.peers.task_residual import task_residual
from kusabi.evaluation import peers


@pytest.fixture
def plain(material):
    return zero_shot(material).probabilities


def test_zero_shot_is_the_models_own_answer(material, plain):
    model, backbone = material.backbone.module, material.backbone
    tokens = backbone.tokenizer([p[0] for p in material.all_prompts], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(
            pixel_values=material.query_pixels.batch(range(12)), input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        ).logits_per_image  # fmt: skip
    assert np.allclose(plain, logits.double().softmax(1).numpy(), atol=1e-5)


def test_class_mean_and_probe_are_kusabis_on_all_views_of_a_picture(material):
    features, labels, pictures = (
        part.numpy() for part in (material.views.features, material.views.labels, material.views.pictures)
    )
    query = material.query.numpy()
    for found, expected in (
        (class_mean(material), peers.class_mean(features, labels, query, 3, groups=pictures)),
        (linear_probe(material), peers.linear_probe(features, labels, pictures, query, 3)),
    ):
        own = found.probabilities[:, :3]
        assert np.allclose(own / own.sum(1, keepdims=True), expected, atol=1e-6)


def test_a_pictures_mean_is_over_its_own_views(material):
    means, labels = picture_features(material)
    views = material.views
    for picture in (0, 7, 11):
        rows = views.pictures == picture
        assert torch.allclose(means[picture], views.features[rows].mean(0)) and labels[picture] == views.labels[rows][0]


def test_clip_adapter_at_ratio_zero_is_zero_shot_and_its_bottleneck_is_a_quarter(material, plain):
    found = clip_adapter(material, ratio=0.0)
    width = material.text.shape[1]
    assert np.allclose(found.probabilities, plain, atol=1e-6)
    assert found.trained == 2 * width * (width // 4) == found.stored / 4


def test_clip_adapter_answers_alike_for_features_that_are_not_normalised(material):
    torch.manual_seed(0)
    adapter = Bottleneck(12)
    assert torch.allclose(adapter(material.query, 0.2), adapter(7.3 * material.query, 0.2), atol=1e-6)
    by_hand = torch.relu(torch.relu(material.query @ adapter.down.weight.T) @ adapter.up.weight.T)
    mixed = 0.2 * by_hand + 0.8 * material.query
    assert torch.allclose(adapter(material.query, 0.2), mixed / mixed.norm(dim=1, keepdim=True), atol=1e-6)


def test_task_residual_begins_at_zero_shot_and_learns_a_vector_a_class(material, plain):
    assert np.allclose(task_residual(replace(material, steps=0)).probabilities, plain, atol=1e-6)
    assert np.allclose(task_residual(material, share=0.0).probabilities, plain, atol=1e-6)
    found = task_residual(material)
    assert found.trained == material.classes * material.text.shape[1] and not np.allclose(found.probabilities, plain)


def test_a_class_without_pictures_keeps_its_text_in_task_residual(material, plain):
    """Its logit stays the same: only the others' share moves it."""
    found = task_residual(replace(material, steps=0)).probabilities
    moved = task_residual(material).probabilities
    grown = np.log(moved) - np.log(found)
    assert not np.allclose(grown[:, 0], grown[:, 3], atol=1e-3)
    texts = material.backbone.scale * material.query.double() @ material.text.double().T
    others = np.log(np.exp(texts[:, 3].numpy()) / moved[:, 3] - np.exp(texts[:, 3].numpy()))
    assert np.isfinite(others).all()
