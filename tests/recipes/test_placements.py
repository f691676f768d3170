import pytest

from kusabi.adapters.placement import write_placement
from kusabi.adapters.targets import everything, plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.recipes.placements import FAMILIES, trials_of
from kusabi.spec_file import build
from kusabi.training.placed import placed


@pytest.fixture(scope="module")
def backbone(tiny):
    return load_backbone(str(tiny("clip")))


def asked(**adapter):
    return build({"adapter": adapter})


@pytest.mark.parametrize(
    ("adapter", "name"),
    [
        ({"layers": "last-2"}, "vision:1-2:*"),
        ({"tower": "both", "layers": "all"}, "vision:0-2:*;text:0-1:*"),
        ({"layers": "all", "projections": ("mlp.*",)}, "vision:0-2:mlp.fc1.weight,mlp.fc2.weight"),
        ({"placement": "vision:2;text:0:mlp.*"}, "vision:2:*;text:0:mlp.fc1.weight,mlp.fc2.weight"),
    ],
)
@pytest.mark.parametrize("budget", [1, 2, 5, 300])
def test_the_default_is_called_what_was_asked_for_and_trains_what_adapt_would(adapter, name, budget, backbone):
    spec = asked(**adapter, budget=budget)
    tried = trials_of(backbone, spec.adapter, FAMILIES)
    assert tried.default == name and tried.budget == budget
    there = plan(backbone.module, backbone.blocks, placed(spec, tried.default, tried.budget).adapter)
    assert there == plan(backbone.module, backbone.blocks, spec.adapter)


def test_a_small_budget_tries_the_same_placements_as_one_that_reaches_every_weight(backbone):
    small, full = (trials_of(backbone, asked(layers="last-2", budget=n).adapter, FAMILIES) for n in (3, 200))
    assert small.trials == full.trials and small.left_out == full.left_out == ()


def test_every_row_names_the_weights_that_its_family_means(backbone):
    whole = everything(backbone.module, backbone.blocks).targets
    tried = trials_of(backbone, asked(layers="last-2", budget=3).adapter, ("in", "projections"))
    for trial in tried.trials:
        if trial.family == "in":
            meant = [t for t in whole if (t.tower, str(t.layer)) == (trial.tower, trial.label)]
        else:
            meant = [t for t in whole if t.tower == "vision" and t.layer > 0 and t.projection == trial.label]
        assert trial.placement == write_placement(meant, whole)
    assert sum(trial.family == "projections" for trial in tried.trials) == 6


def test_a_density_keeps_the_number_of_entries_that_it_means(backbone):
    spec = asked(layers="all", density=0.01).adapter
    assert trials_of(backbone, spec, ("in",)).budget == plan(backbone.module, backbone.blocks, spec).entries
