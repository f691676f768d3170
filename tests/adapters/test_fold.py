import copy

import pytest
import torch
from torch import nn

from kusabi.adapters import fold
from kusabi.adapters.attach import attached
from kusabi.adapters.fold import Fold, suits, weights_of
from kusabi.adapters.sparse_delta import SparseDelta

NAMES = ("0.weight", "2.weight")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 3)).requires_grad_(False)


@pytest.fixture
def delta():
    part = SparseDelta({"0.weight": torch.tensor([0, 5, 23]), "2.weight": torch.tensor([1, 2, 17])})
    part.values.data = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0, 0.0])
    return part


def state(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def dense(model, delta):
    expected = copy.deepcopy(model)
    for name, indices, values in delta.parts():
        expected.get_parameter(name).data.view(-1)[indices.long()] += values
    return state(expected)


def test_weights_are_found_by_name_and_a_missing_one_by_none(model):
    found = weights_of(model, NAMES)
    assert found is not None and found[0] is model[0].weight and found[1] is model[2].weight
    for name in ("1.weight", "2.other", "3.weight", "0.weight.more"):
        assert weights_of(model, (*NAMES, name)) is None


def test_weights_of_several_types_or_lying_across_do_not_suit_one_pass(model):
    assert suits(weights_of(model, NAMES))
    model[0].weight.data = model[0].weight.data.T.contiguous().T
    assert not suits(weights_of(model, NAMES))
    model[0].to(torch.bfloat16)
    assert not suits(weights_of(model, NAMES))


def test_a_second_swap_takes_the_values_and_weights_as_they_are_then(model, delta):
    for number in range(3):
        model[0].weight.data += number
        delta.values.data += number
        before, expected = state(model), dense(model, delta)
        with attached(model, delta):
            assert torch.equal(state(model), expected)
        assert torch.equal(state(model), before)


def test_a_swap_after_the_first_reads_and_writes_every_weight_once_and_checks_nothing_again(model, delta, monkeypatch):
    calls = {"_read": 0, "_write": 0, "mismatches": 0}

    def counted(owner, name):
        real = getattr(owner, name)

        def count(*arguments):
            calls[name] += 1
            return real(*arguments)

        monkeypatch.setattr(owner, name, count)

    with attached(model, delta):
        pass
    counted(fold, "_read")
    counted(fold, "_write")
    counted(SparseDelta, "mismatches")
    with attached(model, delta):
        pass
    assert calls == {"_read": 2, "_write": 4, "mismatches": 0}


def test_what_changed_since_is_found_out(model, delta):
    weights = weights_of(model, NAMES)
    made = Fold(delta, weights)
    assert made.holds(delta, weights)
    delta.indices[0] = 1
    assert not made.holds(delta, weights)
    made = Fold(delta, weights)
    delta.place([3, 3], delta.indices.clone(), delta.values.data)
    assert not made.holds(delta, weights)
    made = Fold(delta, weights)
    model[2].weight.data = torch.zeros(2, 2)
    assert not made.holds(delta, weights)


def test_an_adapter_that_no_longer_fits_is_refused_though_it_was_here_before(model, delta):
    with attached(model, delta):
        pass
    model[2].weight.data = torch.zeros(2, 2)
    before = state(model)
    with pytest.raises(Exception, match="index 17 is outside its 4 entries"), attached(model, delta):
        pytest.fail("entered")
    assert torch.equal(state(model), before)


def test_a_support_that_moved_is_followed(model, delta):
    before = state(model)
    with attached(model, delta):
        pass
    delta.place([1, 2], torch.tensor([7, 0, 9]), torch.tensor([1.0, 2.0, 3.0]))
    expected = dense(model, delta)
    with attached(model, delta):
        assert torch.equal(state(model), expected)
    assert torch.equal(state(model), before)


def test_a_delta_joined_while_another_is_there_leaves_its_room_alone(model, delta):
    before, other = state(model), copy.deepcopy(delta)
    with attached(model, delta):
        pass
    with attached(model, other), attached(model, delta):
        pass
    with attached(model, delta), attached(model, other):
        pass
    assert torch.equal(state(model), before)


def test_leaving_forgets_no_originals_of_a_delta_on_other_weights(model):
    before = state(model)
    low, high = (SparseDelta({name: torch.tensor([0, 3])}) for name in NAMES)
    for part in (low, high):
        part.values.data.fill_(1.0)
    first = attached(model, low)
    first.__enter__()
    with attached(model, high):
        first.__exit__(None, None, None)
        assert not torch.equal(state(model), before)
    assert torch.equal(state(model), before)


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
def test_a_delta_that_was_attached_in_one_mode_is_attached_in_any_other(model, delta, first):
    before, expected = state(model), dense(model, delta)
    for mode in (first, torch.enable_grad, torch.inference_mode, torch.no_grad):
        with mode(), attached(model, delta):
            assert torch.equal(state(model), expected)
        assert torch.equal(state(model), before)


def test_a_delta_that_was_made_in_inference_mode_is_attached_and_followed(model, delta):
    before, expected = state(model), dense(model, delta)
    with torch.inference_mode():
        made = copy.deepcopy(delta)
    assert made.indices.is_inference()
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode(), attached(model, made):
            assert torch.equal(state(model), expected)
        assert torch.equal(state(model), before)
    made.place([1, 0], torch.tensor([9]), torch.tensor([1.0]))
    expected = dense(model, made)
    with attached(model, made):
        assert torch.equal(state(model), expected)
