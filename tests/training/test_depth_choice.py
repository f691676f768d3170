"""How deep an adapter sits where that is left to the labelled pictures."""

import numpy as np
import pytest
import torch

from kusabi.adapters.targets import plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.data.dataset import Example
from kusabi.spec_file import build
from kusabi.training import depth_choice
from kusabi.training.depth_choice import MOST, goes_deep, open_depth, upper_share
from kusabi.training.learn import Setting
from kusabi.training.texts import class_texts

PROMPTS = (("red",), ("green",), ("blue",))


@pytest.fixture(scope="module")
def backbone(tiny):
    """Three vision layers."""
    return load_backbone(str(tiny("clip")))


def setting_of(backbone, shots=4, **adapter):
    spec = build({"adapter": {"budget": 50, **adapter}, "data": {"shots": shots}})
    with torch.no_grad():
        text = class_texts(backbone, PROMPTS)
    return Setting(
        backbone, PROMPTS, text, plan(backbone.module, backbone.blocks, spec.adapter), spec, "float32", shots
    )


def test_the_share_is_that_of_the_upper_half_in_the_energy_per_weight(backbone, dataset, monkeypatch):
    energies = {("vision", 0): 1.0, ("vision", 1): 2.0, ("vision", 2): 5.0}
    monkeypatch.setattr(depth_choice, "layer_energies", lambda found: energies)
    assert upper_share(setting_of(backbone), dataset, dataset.train) == pytest.approx(7 / 8)


def test_it_goes_to_all_layers_below_a_quarter(backbone, dataset, monkeypatch):
    monkeypatch.setattr(depth_choice, "FEWEST", 3)
    for top, deep in ((2.9, True), (3.1, False)):
        energies = {("vision", layer): energy for layer, energy in enumerate((9.0, top / 2, top / 2))}
        monkeypatch.setattr(depth_choice, "layer_energies", lambda found, energies=energies: energies)
        went, share = goes_deep(setting_of(backbone), dataset, dataset.train)
        assert went is deep
        assert share == pytest.approx(top / (9 + top))


def test_with_few_classes_it_stays_and_with_one_label_each_it_goes_without_a_look(backbone, dataset, monkeypatch):
    monkeypatch.setattr(depth_choice, "upper_share", lambda *_: pytest.fail("looked"))
    assert goes_deep(setting_of(backbone, shots=1), dataset, dataset.train) == (False, None)
    assert goes_deep(setting_of(backbone), dataset, dataset.train) == (False, None)
    monkeypatch.setattr(depth_choice, "FEWEST", 3)
    assert goes_deep(setting_of(backbone, shots=1), dataset, dataset.train) == (True, None)


def test_a_real_share_is_the_same_again_whatever_the_budget(backbone, dataset):
    share = upper_share(setting_of(backbone), dataset, dataset.train)
    assert 0 < share < 1
    assert upper_share(setting_of(backbone), dataset, dataset.train) == share
    assert upper_share(setting_of(backbone, budget=7), dataset, dataset.train) == share


@pytest.mark.parametrize(
    ("adapter", "is_open"),
    [
        ({}, True), ({"granularity": "row"}, True), ({"projections": ["q_proj"]}, True),
        ({"layers": "upper-half"}, False), ({"layers": "all"}, False),
        ({"placement": "vision:1:*"}, False), ({"placement": "auto"}, False),
        ({"tower": "both"}, False), ({"tower": "text"}, False), ({"kind": "low_rank"}, False),
        ({"kind": "bottleneck"}, False),
    ],
)  # fmt: skip
def test_depth_is_open_for_sparse_deltas_of_the_vision_tower_that_name_no_layers(adapter, is_open):
    assert open_depth(build({"adapter": adapter})) is is_open


@pytest.mark.parametrize(("classes", "each"), [(2, 30), (3, 5), (10, 16), (26, 4), (100, 3)])
def test_some_pictures_of_classes_from_all_over_stand_for_all(classes, each):
    support = [Example(f"{label}/{n}.png", label, None, "") for label in range(classes) for n in range(each)]
    chosen, labels = depth_choice._some(support)
    counts = np.bincount([example.label for example in chosen], minlength=classes)
    assert len(chosen) <= MOST
    assert {int(counts[label]) for label in labels} == {counts.max()}
    assert counts.max() >= 2
    assert labels[0] == 0
    assert max(labels) >= classes // 2
