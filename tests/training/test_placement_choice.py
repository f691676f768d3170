import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from kusabi.adapters.targets import everything, plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import AdapterError
from kusabi.recipes import ablate as module
from kusabi.recipes.ablate import ablate
from kusabi.recipes.question import pose
from kusabi.spec_file import build
from kusabi.training.learn import Setting, starting
from kusabi.training.placement_choice import Pull, choose_placement, layer_energies, pulls
from kusabi.training.support_choice import support_gradients
from kusabi.training.texts import class_texts
from kusabi.training.views import encode_views

PROMPTS = (("red",), ("green", "a green thing"), ("blue",))


@pytest.fixture(scope="module")
def backbone(tiny):
    """Three vision and two text layers."""
    return load_backbone(str(tiny("clip")))


def only(backbone, tower, layer):
    """The same model, whose other blocks answer by frozen copies: nothing adapted in them changes an answer."""
    alone = replace(backbone, module=copy.deepcopy(backbone.module))
    for name, blocks in alone.blocks.items():
        for number, path in enumerate(blocks):
            if (name, number) != (tower, layer):
                block = alone.module.get_submodule(path)
                frozen = copy.deepcopy(block).requires_grad_(False)
                block.register_forward_hook(partial(as_before, frozen), with_kwargs=True)
    return alone


def as_before(frozen, _block, args, kwargs, out):
    before = frozen(*args, **kwargs)
    if isinstance(out, tuple):
        return (before[0] + 0 * out[0], *before[1:])
    return before + 0 * out


def setting_of(backbone, cross_fit=5):
    """A blend with the class texts: against class means alone no text has a gradient."""
    adapter = {"layers": "last-1", "budget": 100, "blend": 0.5}
    fields = {"adapter": adapter, "data": {"shots": 4}, "safety": {"cross_fit": cross_fit}}
    spec = build(fields)
    with torch.no_grad():
        text = class_texts(backbone, PROMPTS)
    return Setting(backbone, PROMPTS, text, plan(backbone.module, backbone.blocks, spec.adapter), spec, "float32", 4)


def shown(backbone, dataset, layer=0):
    return encode_views(backbone, dataset, dataset.train, layer, views=2, augment="safe", seed=0)


@pytest.mark.parametrize(("tower", "layer"), [("vision", 0), ("vision", 2), ("text", 1)])
def test_the_one_layer_that_can_help_is_the_one_that_is_chosen(tower, layer, backbone, dataset):
    alone = only(backbone, tower, layer)
    found = pulls(setting_of(alone), shown(alone, dataset))
    assert {place for place, energy in layer_energies(found).items() if energy > 0} == {(tower, layer)}
    assert choose_placement(found, 100) == f"{tower}:{layer}:*"


def test_energies_are_those_against_classifiers_that_have_not_seen_the_picture(backbone, dataset):
    views, setting = shown(backbone, dataset), setting_of(backbone)
    whole = everything(backbone.module, backbone.blocks)
    against = starting(setting, views).against
    assert against is not None
    expected = support_gradients(backbone, views, against, PROMPTS, whole, "float32")
    found = pulls(setting, views)
    assert [pull.energy for pull in found] == [
        expected[t.tensor].double().square().mean().item() for t in whole.targets
    ]
    assert [pull.energy for pull in found] != [pull.energy for pull in pulls(setting_of(backbone, 0), views)]


def test_kept_activations_and_pictures_shown_again_say_the_same(backbone, dataset):
    setting = setting_of(backbone)
    kept = pulls(setting, shown(backbone, dataset))
    again = pulls(setting, replace(shown(backbone, dataset, None), layer=0))
    assert kept == again


def of(tower, *energies):
    return [Pull(tower, n, "q", 100, energy) for n, energy in enumerate(energies)]


def test_the_upper_half_serves_where_it_holds_a_quarter_of_its_tower():
    assert choose_placement(of("vision", 4.0, 5.0, 1.0, 2.0), 50) == "vision:2-3:*"
    assert choose_placement(of("vision", 4.0, 5.1, 1.0, 2.0), 50) == "vision:0-3:*"


def test_a_tower_that_hardly_pulls_is_left_out():
    vision = of("vision", 1.0, 1.0)
    assert choose_placement([*vision, *of("text", 0.3, 0.3)], 50) == "vision:1:*"
    assert choose_placement([*vision, *of("text", 0.4, 0.4)], 50) == "vision:1:*;text:1:*"


def test_what_the_budget_lacks_is_added_strongest_first():
    found = of("vision", 2.0, 1.0, 3.0, 3.0)
    assert choose_placement(found, 200) == "vision:2-3:*"
    assert choose_placement(found, 201) == "vision:0,2-3:*"
    assert choose_placement(of("vision", 0.0, 0.0, 0.0, 3.0), 101) == "vision:0,3:*"


def test_no_gradient_anywhere_is_refused(backbone, dataset):
    alone = only(backbone, "vision", -1)
    with pytest.raises(AdapterError, match="zero everywhere"):
        pulls(setting_of(alone), shown(alone, dataset))


def test_an_ablation_moves_to_the_one_layer_that_can_help(tiles, tiny, tmp_path, monkeypatch):
    def posed(*arguments, **options):
        question = pose(*arguments, **options)
        return replace(question, backbone=only(question.backbone, "vision", 1))

    monkeypatch.setattr(module, "pose", posed)
    spec = build({
        "backbone": {"backbone": str(tiny("clip"))}, "data": {"views": 1, "shots": 4},
        "training": {"steps": 6, "batch_size": 6, "precision": "float32"},
        "adapter": {"layers": "last-1", "budget": 100, "head": "text"},
    })  # fmt: skip
    folder = str(tiles(train=4, test=2, names=("cat", "dog", "plate")))
    found = ablate(folder, spec, tmp_path / "out", families=("in",), seeds=1)
    assert {one["entries"] for one in found["placements"].values()} == {100} and len(found["placements"]) == 5
    assert found["auto"]["chosen"] == ["vision:1:*"] and found["default"] == "vision:2:*"
    assert (found["recommendation"]["placement"], found["recommendation"]["action"]) == ("vision:1:*", "move")
    others = [one["support_loss"] for name, one in found["placements"].items() if name != "vision:1:*"]
    assert others == pytest.approx([others[0]] * 4, abs=1e-5)  # texts that are encoded again differ in a last bit
