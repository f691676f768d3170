from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.peers.frozen_features import picture_features
from benchmarks.peers.lp_plus_plus import fit, lp_plus_plus, starting


@pytest.fixture
def parts(material):
    means, labels = picture_features(material)
    features, text = material.views.features.double(), material.text[:3].double()
    return features, material.views.labels, text, starting(features, means.double(), labels, text)


def test_starting_values_and_step_sizes_are_the_papers(material, parts):
    features, labels, text, start = parts
    rows, cosines, truth = features.numpy(), (features @ text.T).numpy(), labels.numpy()
    expected = [rows[truth == c].sum(0) / 2 for c in range(3)]  # sum over pictures of the mean of two views
    assert np.allclose(start.weights, expected)
    assert start.alpha == pytest.approx(250 * np.mean([cosines[truth == c, c].mean() for c in range(3)]))
    largest_singular = np.linalg.svd(rows, compute_uv=False)[0]
    assert start.weight_step == pytest.approx(4 * len(rows) / largest_singular**2)
    assert start.alpha_step == pytest.approx(len(rows) / (4 * (cosines**2).sum(0).max()))


def curvature(features, labels, text, weights, alphas, of):
    """Largest eigenvalue of the loss's Hessian in one block, by automatic differentiation."""
    first = {"weights": weights, "alphas": alphas}[of]

    def loss(flat):
        now = {"weights": weights, "alphas": alphas} | {of: flat.reshape(first.shape)}
        return F.cross_entropy(features @ now["weights"].T + now["alphas"] * (features @ text.T), labels)

    hessian = torch.autograd.functional.hessian(loss, first.flatten())
    return float(torch.linalg.eigvalsh(hessian)[-1])


@pytest.mark.parametrize("shrink", [0.0, 1.0])
def test_the_step_sizes_keep_below_the_curvature_bounds(parts, shrink):
    features, labels, text, start = parts
    weights, alphas = shrink * start.weights, torch.full((3,), shrink * start.alpha, dtype=torch.float64)
    assert start.weight_step <= 2 / curvature(features, labels, text, weights, alphas, "weights")
    assert start.alpha_step <= 1 / curvature(features, labels, text, weights, alphas, "alphas")


def test_without_momentum_the_loss_never_rises(parts):
    _, _, losses = fit(*parts, rounds=200, momentum=0.0)
    assert all(after <= before + 1e-12 for before, after in pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]


def test_momentum_goes_further_in_as_many_rounds_and_alphas_move_every_tenth(parts):
    _, alphas, losses = fit(*parts)
    assert losses[-1] < fit(*parts, momentum=0.0)[2][-1] and len(losses) == 300
    assert torch.equal(fit(*parts, rounds=9)[1], torch.full_like(alphas, parts[3].alpha))
    assert not torch.equal(fit(*parts, rounds=10)[1], torch.full_like(alphas, parts[3].alpha))


def test_its_answers_are_the_linear_map(material, parts):
    weights, alphas, _ = fit(*parts)
    logits = material.query.double() @ (weights + alphas[:, None] * parts[2]).T
    found = lp_plus_plus(material)
    own = found.probabilities[:, :3]
    assert np.allclose(own / own.sum(1, keepdims=True), logits.softmax(1).numpy(), atol=1e-9)
    assert found.trained == 3 * (12 + 1)
