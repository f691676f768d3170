import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kusabi.adapters.targets import layer_range, plan
from kusabi.errors import AdapterError
from kusabi.spec import AdapterSpec

LAYER = {"self_attn.in_proj_weight": 192, "self_attn.out_proj.weight": 64, "linear1.weight": 128, "linear2.weight": 128}


def test_the_default_is_the_upper_half_of_the_vision_tower_all_matrices_and_nothing_changes(towers, blocks, digest):
    module = towers()
    before = digest(module)
    planned = plan(module, blocks, AdapterSpec(density=0.125))
    assert [(t.tensor, t.tower, t.layer, t.projection, t.size, t.entries) for t in planned.targets] == [
        (f"vision.{layer}.{projection}", "vision", layer, projection, size, size // 8)
        for layer in (2, 3)
        for projection, size in LAYER.items()
    ]
    assert (planned.entries, planned.size, planned.first_layer) == (128, 1024, {"vision": 2})
    told = planned.to_json()
    assert (told["entries"], told["targeted"], told["density"], told["bytes"]) == (128, 1024, 0.125, 448)
    assert told["targets"][0] == vars(planned.targets[0]) and len(told["targets"]) == 8
    assert digest(module) == before and not any(parameter.requires_grad for parameter in module.parameters())


@settings(max_examples=40, deadline=None)
@given(budget=st.integers(1, 3072), tower=st.sampled_from(["vision", "text", "both"]))
def test_entries_add_up_to_the_budget_and_none_exceeds_its_weight(towers, blocks, budget, tower):
    spec, size = AdapterSpec(budget=budget, tower=tower, layers="all"), {"vision": 2048, "text": 1024, "both": 3072}
    if budget > size[tower]:
        with pytest.raises(AdapterError, match=f"budget {budget} is larger than the {size[tower]} entries"):
            plan(towers(), blocks, spec)
        return
    planned = plan(towers(), blocks, spec)
    assert planned.entries == budget
    assert all(1 <= target.entries <= target.size for target in planned.targets)
    assert len({target.tensor for target in planned.targets}) == len(planned.targets)
    first = {tower: min(t.layer for t in planned.targets if t.tower == tower) for tower in planned.first_layer}
    assert planned.first_layer == first and first.keys() == {target.tower for target in planned.targets}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (("self_attn",), {"self_attn.in_proj_weight", "self_attn.out_proj.weight"}),
        (("in_proj_weight", "linear2.*"), {"self_attn.in_proj_weight", "linear2.weight"}),
        (("linear?",), {"linear1.weight", "linear2.weight"}),
        (("*.weight",), {"self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}),
    ],
)
def test_patterns_meet_whole_paths_or_their_parts(towers, blocks, patterns, found):
    planned = plan(towers(), blocks, AdapterSpec(projections=patterns, layers="0", density=1.0))
    assert {target.projection for target in planned.targets} == found


def test_no_match_is_an_error_that_names_what_exists(towers, blocks):
    with pytest.raises(AdapterError) as refusal:
        plan(towers(), blocks, AdapterSpec(layers="upper-half", projections=("q_proj", "fc?")))
    message = str(refusal.value)
    assert "'q_proj', 'fc?'" in message and "'vision'" in message and "'upper-half'" in message
    assert all(projection in message for projection in LAYER)


def test_a_tied_weight_is_one_target_under_its_first_name(towers, blocks):
    module = towers()
    module["text"][1].linear1.weight = module["text"][0].linear1.weight
    module["text"][1].linear2.weight = module["vision"][3].linear2.weight
    planned = plan(module, blocks, AdapterSpec(tower="both", layers="all", density=1.0))
    names = [target.tensor for target in planned.targets]
    assert planned.size == planned.entries == 3072 - 256
    assert "text.0.linear1.weight" in names and "text.1.linear1.weight" not in names
    assert names.count("vision.3.linear2.weight") == 1 and "text.1.linear2.weight" not in names
    upper = plan(module, blocks, AdapterSpec(tower="text", layers="1", projections=("linear1",), density=1.0))
    assert [target.tensor for target in upper.targets] == ["text.0.linear1.weight"], "the name the model lists it under"


def test_kernels_are_targets_and_norms_embeddings_and_biases_are_not():
    block = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Embedding(5, 7), nn.Linear(2, 2), nn.Conv1d(2, 1, 2)
    )
    planned = plan(nn.ModuleDict({"block": block}), {"vision": ["block"]}, AdapterSpec(layers="all", density=1.0))
    sizes = {target.tensor: target.size for target in planned.targets}
    assert sizes == {"block.0.weight": 54, "block.3.weight": 4, "block.4.weight": 4}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_any_set_of_layers_can_be_written_as_a_list(case):
    count, layers = case
    assert layer_range(",".join(map(str, layers)), count) == tuple(sorted(layers))
    low, high = min(layers), max(layers)
    assert layer_range(f"{low}-{high}", count) == tuple(range(low, high + 1))
    assert layer_range(f"last-{count - low}", count) == tuple(range(low, count))
    assert layer_range("all", count) == tuple(range(count))
    assert layer_range("upper-half", count) == tuple(range(count // 2, count))


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789-,last upperhf", max_size=12) | st.text(max_size=6), st.integers(1, 12))
def test_other_texts_are_refused_naming_the_text_or_give_layers_of_the_tower(text, count):
    try:
        layers = layer_range(text, count)
    except AdapterError as refusal:
        assert f"layers '{text}'" in str(refusal)
    else:
        assert layers and list(layers) == sorted(set(layers)) and 0 <= layers[0] <= layers[-1] < count


@pytest.mark.parametrize(
    "text", ["8", "4-8", "last-9", "last-0", "5-2", "0,5-2", "0-99999999999999", "last-99999999999999"]
)
def test_layers_that_the_tower_lacks_are_refused_at_once(text):
    with pytest.raises(AdapterError, match="layers 0 to 7"):
        layer_range(text, 8)
