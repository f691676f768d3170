import pytest
import torch

from kusabi.adapters.attach import attached
from kusabi.adapters.part import check_fits
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError

FUSED, UP = "vision.3.self_attn.in_proj_weight", "vision.2.linear1.weight"


def test_a_delta_is_one_flat_fp32_parameter_zero_at_birth_with_int32_indices():
    delta = SparseDelta(
        {"b": torch.tensor([2, 5]), "a": torch.tensor([0]), "none": torch.tensor([], dtype=torch.int64)}
    )
    assert [name for name, _ in delta.named_parameters()] == ["values"]
    assert delta.values.dtype == torch.float32 and delta.values.tolist() == [0, 0, 0] and len(delta) == 3
    assert delta.names == ("b", "a", "none") and delta.indices.dtype == torch.int32
    delta.values.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    parts = {name: (indices.tolist(), values.tolist()) for name, indices, values in delta.parts()}
    assert parts == {"b": ([2, 5], [1, 2]), "a": ([0], [3]), "none": ([], [])}
    for _, _, values in delta.parts():
        values.zero_()
    assert not bool(delta.values.any()), "parts are views"


@pytest.mark.parametrize(
    "support", [torch.tensor(row) for row in ([1, 1], [2, 1], [-1, 1], [[0], [1]], [1, 2**31], [2**32, 2**32 + 1])]
)
def test_indices_that_are_no_rising_row_are_refused_by_name(support):
    with pytest.raises(AdapterError, match=r"^vision\.w: "):
        SparseDelta({"fine": torch.tensor([0]), "vision.w": support})


def test_the_highest_position_that_int32_holds_is_kept():
    assert SparseDelta({"w": torch.tensor([0, 2**31 - 1])}).indices.tolist() == [0, 2**31 - 1]


def test_a_delta_without_targets_is_refused():
    with pytest.raises(AdapterError, match="at least one target"):
        SparseDelta({})


@pytest.mark.parametrize("cast", [lambda d: d.to(torch.bfloat16), lambda d: d.half(), lambda d: d.double()])
def test_casts_leave_the_indices_integers_and_the_cast_delta_works(towers, digest, cast):
    module, delta = towers(), SparseDelta({FUSED: torch.tensor([3, 191]), UP: torch.tensor([0, 127])})
    delta.values.data.fill_(0.25)
    before, fused, up = digest(module), module.get_parameter(FUSED), module.get_parameter(UP)
    wanted = torch.cat([fused.view(-1)[[3, 191]], up.view(-1)[[0, 127]]]) + 0.25
    cast(delta)
    assert delta.values.dtype != torch.float32
    assert delta.indices.dtype == torch.int32 and delta.indices.tolist() == [3, 191, 0, 127]
    assert cast(SparseDelta({"w": torch.tensor([257, 2**24 + 1])})).indices.tolist() == [257, 2**24 + 1]
    with attached(module, delta):
        assert torch.equal(torch.cat([fused.view(-1)[[3, 191]], up.view(-1)[[0, 127]]]), wanted)
    assert digest(module) == before


def test_all_misfits_are_listed_at_once(towers):
    delta = SparseDelta({UP: torch.tensor([128]), FUSED: torch.tensor([191]), "a.b": torch.tensor([0])})
    with pytest.raises(AdapterError) as refusal:
        check_fits(delta, towers())
    message = str(refusal.value)
    assert f"{UP}: index 128 is outside its 128 entries" in message
    assert "a.b: the model has no such weight" in message
    assert FUSED not in message


def test_other_entries_take_the_place_of_the_old_ones_in_the_same_parameter():
    delta = SparseDelta({"a": torch.tensor([1, 2]), "b": torch.tensor([0])})
    parameter, values = delta.values, torch.tensor([1.0, 2.0, 3.0, 4.0])
    parameter.grad = torch.ones(3)
    delta.place([0, 4], torch.tensor([2, 3, 5, 7]), values)
    assert delta.values is parameter and parameter.grad is None and delta.counts == (0, 4) and len(delta) == 4
    assert {name: (i.tolist(), v.tolist()) for name, i, v in delta.parts()} == {
        "a": ([], []),
        "b": ([2, 3, 5, 7], [1, 2, 3, 4]),
    }
    assert delta.indices.dtype == torch.int32 and dict(delta.named_buffers())["indices"] is delta.indices
    values.zero_()
    assert parameter.tolist() == [1, 2, 3, 4], "a copy"


@pytest.mark.parametrize(
    ("counts", "indices", "message"),
    [
        ([2, 1], [1, 1, 0], "^a: indices must be one rising row"),
        ([1, 2], [5, 4, 3], "^b: indices must be one rising row"),
        ([1, 2], [0, 5, 2**31], r"^b: indices must be one rising row of positions below 2\^31"),
        ([3], [1, 2, 3], "1 counts, 3 indices and 3 values do not make up one part of 2 targets"),
        ([1, 1], [1, 2, 3], "2 counts, 3 indices and 3 values"),
    ],
)
def test_entries_that_do_not_belong_together_are_refused_and_nothing_changes(counts, indices, message):
    delta = SparseDelta({"a": torch.tensor([1, 2]), "b": torch.tensor([0])})
    with pytest.raises(AdapterError, match=message):
        delta.place(counts, torch.tensor(indices), torch.zeros(len(indices)))
    assert delta.counts == (2, 1) and delta.indices.tolist() == [1, 2, 0]
