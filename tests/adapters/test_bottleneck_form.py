import pytest
import torch

from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.bottleneck_birth import fresh
from kusabi.adapters.bottleneck_form import Form
from kusabi.errors import AdapterError


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"size": 0, "scale": float("nan"), "activation": "tanh"}, ["'size'", "'scale'", "'activation'"]),
        ({"size": "3", "dropout": 1.0, "rank": 2}, ["'size'", "'dropout'", "'rank'"]),
        ({"widths": {}}, ["'widths'"]),
        ({"widths": {"0": -4}, "experts": 0, "norm": 1}, ["'widths.0'", "'experts'", "'norm'"]),
        ({"widths": {"0": 2**30}}, ["more than 2147483648 entries a matrix at 0"]),
        ({"widths": {"0": 4, "1": 4}}, ["1: needs a width and entries"]),
        ({"size": 2}, ["0.down: index 11 is outside its 8", "0.up: index 11", "0.down_bias: index 2"]),
        ({"size": 4}, ["0.down_bias: has 3 of 4 entries"]),
        ({"biases": False}, ["0.down_bias: does not belong here", "0.up_bias: does not belong here"]),
    ],
)
def test_hostile_settings_are_refused_with_all_that_is_wrong(changes, messages):
    part = fresh(Form(widths={"0": 4}, size=3))
    supports = {name: indices for name, indices, _ in part.parts()}
    with pytest.raises(AdapterError) as refusal:
        Bottleneck.build({**part.settings(), **changes}, supports)
    assert all(message in str(refusal.value) for message in messages)


def test_tensors_that_are_missing_strange_or_disordered_are_refused():
    part = fresh(Form(widths={"0": 4}, size=3))
    supports = {name: indices for name, indices, _ in part.parts()}
    without = {name: indices for name, indices in supports.items() if name != "0.up"}
    with pytest.raises(AdapterError, match=r"0\.gate: does not belong here; 0\.up: is missing"):
        Bottleneck.build(part.settings(), {**without, "0.gate": torch.tensor([0])})
    with pytest.raises(AdapterError, match="must follow each other"):
        Bottleneck.build(part.settings(), dict(reversed(supports.items())))
    with pytest.raises(AdapterError, match=r"0\.up: indices must be one rising row"):
        Bottleneck.build(part.settings(), {**supports, "0.up": torch.tensor([3, 1])})


def test_sizes_are_those_of_the_dense_tensors_and_totals_their_sums():
    form = Form(widths={"a.mlp": 5, "b": 7}, size=3)
    assert form.sizes("b") == {"b.down": 21, "b.down_bias": 3, "b.up": 21, "b.up_bias": 7}
    assert form.totals() == (72, 18)
    bare = form.model_copy(update={"biases": False})
    assert bare.sizes("a.mlp") == {"a.mlp.down": 15, "a.mlp.up": 15} and bare.totals() == (72, 0)
