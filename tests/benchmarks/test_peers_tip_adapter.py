from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.peers.frozen_features import zero_shot
from benchmarks.peers.tip_adapter import ALPHA, ALPHAS, BETA, BETAS, cache, tip_adapter, tip_adapter_f


def test_alpha_zero_is_zero_shot(material):
    plain = zero_shot(material).probabilities
    for method in (tip_adapter, tip_adapter_f):
        assert np.allclose(method(material, alpha=0.0, beta=5.5).probabilities, plain, atol=1e-7)


def test_the_cache_adds_what_the_papers_formula_says(material):
    found = tip_adapter(material, alpha=1.5, beta=4.0).probabilities[:, :3]
    keys, labels = (part.double().numpy() for part in cache(material))
    query, text = material.query.double().numpy(), material.text[:3].double().numpy()
    for row, x in enumerate(query):
        logits = material.backbone.scale * text @ x
        for key, label in zip(keys, labels, strict=True):
            logits[int(label)] += 1.5 * np.exp(-4.0 * (1 - key @ x))
        share = np.exp(logits - logits.max())
        assert np.allclose(found[row] / found[row].sum(), share / share.sum(), atol=1e-5)


def test_the_trained_cache_begins_at_the_one_that_is_not_and_then_leaves_it(material):
    values = {"alpha": 1.0, "beta": 5.5}
    frozen = tip_adapter(material, **values)
    assert np.allclose(tip_adapter_f(material, **values, steps=0).probabilities, frozen.probabilities, atol=1e-7)
    found = tip_adapter_f(material, **values)
    assert not np.allclose(found.probabilities, frozen.probabilities, atol=1e-6)
    assert (frozen.trained, found.trained) == (0, 12 * material.text.shape[1])


def test_alpha_and_beta_are_those_of_the_least_loss_without_a_pictures_own_key(material):
    keys, labels = cache(material)
    shown, scale, text = material.views.features[:12].double(), material.backbone.scale, material.text[:3].double()

    def loss(alpha, beta):
        total = 0.0
        for row in range(12):
            logits = scale * text @ shown[row]
            for other in range(12):
                if other != row:
                    logits[labels[other]] += alpha * torch.exp(-beta * (1 - keys[other].double() @ shown[row]))
            total -= float(logits.log_softmax(0)[labels[row]])
        return total

    losses = {(alpha, beta): loss(alpha, beta) for alpha in ALPHAS for beta in BETAS}
    chosen = tip_adapter(material).chosen
    assert losses[chosen["alpha"], chosen["beta"]] == pytest.approx(min(losses.values()), rel=1e-5)
    assert len(set(losses.values())) > 40


def test_query_pictures_choose_nothing(material):
    turned = replace(material, query=-material.query.flip(0))
    assert tip_adapter(turned).chosen == tip_adapter(material).chosen


def test_with_one_picture_a_class_the_papers_values_stand(gathered):
    assert tip_adapter(gathered(shots=1)).chosen == {"alpha": ALPHA, "beta": BETA}
