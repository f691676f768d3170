import numpy as np
import pytest
import torch

from benchmarks.peers.frozen_features import zero_shot
from benchmarks.peers.material import projection
from benchmarks.peers.prolip import prolip
from kusabi.errors import BackboneError


def test_a_pull_without_end_is_zero_shot_and_none_is_not(material):
    plain = zero_shot(material).probabilities
    near, far = prolip(material, strength=1e6).probabilities, prolip(material, strength=0.0).probabilities
    assert np.abs(near - plain).max() < 1e-3 < 0.1 * np.abs(far - plain).max()


def test_the_pull_is_one_by_the_number_of_shots(material):
    assert np.array_equal(prolip(material).probabilities, prolip(material, strength=1 / 4).probabilities)
    assert not np.array_equal(prolip(material).probabilities, prolip(material, strength=1.0).probabilities)


def test_it_learns_the_last_linear_map_and_nothing_else(material):
    layer = projection(material.backbone.module)
    before = layer.weight.clone()
    found = prolip(material)
    assert found.trained == layer.in_features * layer.out_features == 16 * 12
    assert torch.equal(layer.weight, before) and layer.weight.grad is None


def test_a_tower_without_a_last_linear_map_is_refused(gathered):
    with pytest.raises(BackboneError, match="siglip models have none; leave ProLIP out"):
        prolip(gathered("siglip"))
