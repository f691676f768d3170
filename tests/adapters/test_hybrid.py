import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kusabi.adapters.attach import attached, merge
from kusabi.adapters.hybrid import Split, rank_cost, rosa_supports, split_budget
from kusabi.adapters.low_rank import fresh
from kusabi.adapters.merged_training import dense_gradients, working_copy
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError

FUSED, UP = "vision.3.self_attn.in_proj_weight", "vision.2.linear1.weight"
SHAPES = {FUSED: (24, 8), UP: (16, 8)}
PICTURES = torch.linspace(-1, 1, 96).sin().view(4, 3, 8)


def hybrid(seed=0, entries=40):
    random = torch.Generator().manual_seed(seed)
    sparse = SparseDelta({name: random_support(rows * 8, entries, seed, name) for name, (rows, _) in SHAPES.items()})
    low_rank = fresh(SHAPES, 2, 3.0)
    for part in (sparse, low_rank):
        part.values.data = torch.randn(len(part), generator=random) * 0.3
    return sparse, low_rank


def loss_of(module):
    return (module["vision"](PICTURES) * torch.arange(24.0).sin().view(3, 8)).sum()


def dense_updates(sparse, low_rank):
    found = {}
    for name, (rows, columns) in SHAPES.items():
        update = torch.zeros(rows * columns)
        for at, value in zip(sparse.indices[sparse.slices[name]], sparse.values[sparse.slices[name]], strict=True):
            update[int(at)] += value.detach()
        a = low_rank.values.data[low_rank.slices[f"{name}.A"]].view(2, columns)
        b = low_rank.values.data[low_rank.slices[f"{name}.B"]].view(rows, 2)
        found[name] = update.view(rows, columns) + 1.5 * (b[:, :1] * a[:1] + b[:, 1:] * a[1:])
    return found


def dense_gradients_of_both(module, sparse, low_rank):
    # From the dense gradient at the sum of both, by the chain rule entry by entry.
    copied = copy.deepcopy(module)
    for name, update in dense_updates(sparse, low_rank).items():
        copied.get_parameter(name).data += update
        copied.get_parameter(name).requires_grad_(True)
    loss_of(copied).backward()
    of_sparse, of_factors = [], []
    for name, (rows, columns) in SHAPES.items():
        gradient = copied.get_parameter(name).grad
        of_sparse.append(torch.stack([gradient.flatten()[int(i)] for i in sparse.indices[sparse.slices[name]]]))
        a = low_rank.values.data[low_rank.slices[f"{name}.A"]].view(2, columns)
        b = low_rank.values.data[low_rank.slices[f"{name}.B"]].view(rows, 2)
        of_factors.append(1.5 * torch.einsum("oi,or->ri", gradient, b).flatten())
        of_factors.append(1.5 * torch.einsum("oi,ri->or", gradient, a).flatten())
    return torch.cat(of_sparse), torch.cat(of_factors)


@pytest.mark.parametrize("order", [1, -1])
def test_both_train_on_the_same_weights_step_by_step_as_a_dense_reference_does(towers, digest, order):
    # The linear layer: sparse on the working copy, low rank beside it. The fused weight: both on the working copy.
    module, parts = towers(), hybrid()
    reference = copy.deepcopy(parts)
    before = digest(module)
    with working_copy(module, *parts[::order]) as copied:
        assert set(copied.weights) == {FUSED, UP}
        assert [len(copied.covering[name]) for name in (FUSED, UP)] == [2, 1]
        for _ in range(4):
            loss_of(module).backward()
            for part, wanted in zip(parts, dense_gradients_of_both(towers(), *reference), strict=True):
                assert float(wanted.abs().median()) > 1e-2
                torch.testing.assert_close(part.values.grad, wanted, rtol=1e-3, atol=1e-3)
                part.values.data -= 2e-3 * part.values.grad
                part.values.grad = None
                reference[parts.index(part)].values.data -= 2e-3 * wanted
            copied.fold()
        trained = module["vision"](PICTURES)
    assert digest(module) == before
    with attached(module, *parts):
        torch.testing.assert_close(trained, module["vision"](PICTURES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_attached_or_merged_add_up_and_leave_no_trace(towers, digest, dtype):
    module, parts = towers(dtype=dtype), hybrid()
    before, merged = digest(module), copy.deepcopy(module)
    wanted = {name: module.get_parameter(name).float() + update for name, update in dense_updates(*parts).items()}
    merge(merged, *parts)
    with attached(module, *parts):
        for name in SHAPES:
            eps = torch.finfo(dtype).eps  # attached: rounded once; merged: once for each part
            torch.testing.assert_close(module.get_parameter(name).float(), wanted[name], rtol=eps, atol=1e-6)
            torch.testing.assert_close(merged.get_parameter(name).float(), wanted[name], rtol=2 * eps, atol=eps)
    assert digest(module) == before


def test_around_a_warm_low_rank_part_squared_gradients_choose_the_support(towers, digest):
    module, low_rank = towers(), hybrid()[1]
    before = digest(module)
    copied = copy.deepcopy(module)
    nothing = SparseDelta({name: torch.tensor([0]) for name in SHAPES})
    for name, update in dense_updates(nothing, low_rank).items():
        copied.get_parameter(name).data += update
        copied.get_parameter(name).requires_grad_(True)
    squares = {name: np.zeros(rows * columns) for name, (rows, columns) in SHAPES.items()}
    for picture in PICTURES.split(1):
        copied["vision"](picture).square().sum().backward()
        for name in SHAPES:
            squares[name] += copied.get_parameter(name).grad.flatten().double().numpy() ** 2
            copied.get_parameter(name).grad = None
    wanted = {name: sorted(np.argsort(-squares[name])[:k].tolist()) for name, k in ((FUSED, 11), (UP, 5))}

    def batches():
        for picture in PICTURES.split(1):
            with attached(module, low_rank), dense_gradients(module, tuple(SHAPES)) as collected:
                module["vision"](picture).square().sum().backward()
            yield collected

    found = rosa_supports(batches(), {FUSED: 11, UP: 5})
    assert {name: support.tolist() for name, support in found.items()} == wanted
    assert list(found) == [FUSED, UP] and found[UP].dtype == torch.int32
    assert digest(module) == before


def test_a_model_that_fits_neither_part_is_refused_with_the_mismatches_of_both(towers, digest):
    other = towers()
    other["vision"][3].self_attn.in_proj_weight = nn.Parameter(torch.zeros(3, 8))
    other["vision"][2].linear1 = nn.Linear(8, 5)
    sparse, low_rank = SparseDelta({FUSED: torch.tensor([23, 24])}), fresh({UP: (16, 8)}, 2, 1.0)
    before = digest(other)
    for way in (attached, working_copy, lambda *given: nullcontext(merge(*given))):
        with pytest.raises(AdapterError) as refusal, way(other, sparse, low_rank):
            pytest.fail("entered")
        told = f"{FUSED}: index 24 is outside its 24 entries; {UP}: factors of 16 x 8 for a weight of (5, 8)"
        assert str(refusal.value) == f"the adapter does not fit this model: {told}"
    assert digest(other) == before
    with pytest.raises(AdapterError) as refusal, attached(nn.Linear(2, 2), *hybrid()):
        pytest.fail("entered")
    assert str(refusal.value).count(f"{UP}: the model has no such weight") == 1, "both lack it, in the same words"


def test_squares_are_summed_not_sums_squared_and_ties_go_to_the_lower_index():
    batches = [{"w": torch.tensor([[3.0, 2.0], [2.0, 0.0]])}, {"w": torch.tensor([[-3.0, 2.0], [-2.0, 0.0]])}]
    assert rosa_supports(batches, {"w": 2})["w"].tolist() == [0, 1]
    assert rosa_supports(batches, {"w": 0})["w"].tolist() == []
    batches = [{"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([2.0, 0.0])}]  # larger in sum, smaller in squares
    assert rosa_supports(batches, {"w": 1})["w"].tolist() == [1]


def test_weights_without_usable_gradients_are_all_named():
    batches = [{"w": torch.tensor([torch.nan]), "v": torch.ones(1)}, {"w": torch.ones(1)}]
    with pytest.raises(AdapterError) as refusal:
        rosa_supports(batches, {"w": 1, "v": 1, "u": 1})
    assert "w: its gradient is not finite" in str(refusal.value)
    assert "v: no gradient reached it" in str(refusal.value) and "u: no gradient" in str(refusal.value)
    with pytest.raises(AdapterError, match="w: no gradient reached it"):
        rosa_supports([], {"w": 1})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 9), st.integers(1, 3), st.integers(2, 4)), min_size=1, max_size=4),
    st.integers(1, 300), st.floats(0.05, 1.0), st.booleans(),
)  # fmt: skip
def test_both_parts_together_cost_the_budget_and_one_more_rank_would_not_fit(shapes, budget, share, gated):
    shapes = dict(zip("abcd", shapes, strict=False))
    each = {name: fresh({name: shape}, 1, 1.0, shrinkage=0.1 if gated else None) for name, shape in shapes.items()}
    cost = sum(len(part) for part in each.values())
    assert rank_cost(shapes, gated=gated) == cost
    positions = sum(shape[0] * shape[1] * shape[2] for shape in shapes.values())
    most = min(min(shape[0], shape[1] * shape[2]) for shape in shapes.values())
    try:
        split = split_budget(budget, shapes, share=share, gated=gated)
    except AdapterError:
        assert cost > share * budget or budget - cost * min(most, int(share * budget / cost)) > positions
        return
    low_rank = fresh(shapes, split.rank, 1.0, shrinkage=0.1 if gated else None)
    assert len(low_rank) + split.entries == budget and 0 <= split.entries <= positions
    assert len(low_rank) <= share * budget and (split.rank == most or len(low_rank) + cost > share * budget)


def test_a_rank_may_be_stated_and_the_rest_is_sparse():
    assert split_budget(450, SHAPES, rank=3) == Split(3, 450 - 3 * (32 + 24))
    assert split_budget(168, SHAPES, rank=3) == Split(3, 0)
    for budget, rank, complaint in (
        (167, 3, "rank 3 costs 168 entries, more than the budget of 167"),
        (999, 9, "rank 9 is not within 1 and the 8"),
        (100, 0, "rank 0 is not within 1"),
        (400, 1, "344 sparse entries are more than the 320"),
    ):
        with pytest.raises(AdapterError, match=complaint):
            split_budget(budget, SHAPES, rank=rank)
    with pytest.raises(AdapterError, match=r"a share of 0.5 of 100 entries buys no rank.*costs 56"):
        split_budget(100, SHAPES)
    with pytest.raises(AdapterError, match="at least one weight"):
        split_budget(100, {})
