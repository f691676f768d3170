import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.attach import attached
from kusabi.adapters.compose import compose
from kusabi.adapters.free_support import random_free_support, taken_positions, top_free_support
from kusabi.adapters.interference import interference
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support, top_support
from kusabi.errors import AdapterError

UP, FUSED = "vision.2.linear1.weight", "vision.3.self_attn.in_proj_weight"


def delta_of(entries):
    delta = SparseDelta({name: torch.tensor(sorted(row), dtype=torch.int64) for name, row in entries.items()})
    delta.values.data.copy_(torch.tensor([row[i] for row in entries.values() for i in sorted(row)]))
    return delta


@st.composite
def weights_partly_taken(draw):
    size = draw(st.integers(1, 60))
    taken = draw(st.sets(st.integers(0, size - 1)))
    return size, taken, draw(st.integers(0, size - len(taken)))


@settings(max_examples=20, deadline=None)
@given(weights_partly_taken(), st.integers(0, 2**32), st.data())
def test_a_free_support_is_the_usual_rule_on_the_list_of_free_positions(case, seed, data):
    size, taken, k = case
    free = [i for i in range(size) if i not in taken]
    order = torch.tensor(data.draw(st.permutations(sorted(taken))), dtype=torch.int32)
    levels = st.sampled_from([-math.inf, -1.5, 0.0, 0.5, math.inf])
    scores = torch.tensor(data.draw(st.lists(levels, min_size=size, max_size=size)))
    by_chance = random_free_support(size, k, seed, "w", order)
    by_score = top_free_support(scores.view(1, -1), k, "w", order)
    assert by_chance.tolist() == [free[rank] for rank in random_support(len(free), k, seed, "w").tolist()]
    assert by_score.tolist() == sorted(sorted(free, key=lambda i: (-scores[i].item(), i))[:k])
    for support in (by_chance, by_score):
        assert support.dtype == torch.int32 and support.shape == (k,) and not taken & set(support.tolist())
        assert bool((support[1:] > support[:-1]).all())


def test_with_nothing_taken_the_free_support_is_the_usual_one():
    nothing, scores = torch.tensor([], dtype=torch.int32), torch.linspace(-3, 3, 50).sin()
    assert torch.equal(random_free_support(50, 9, 3, "w", nothing), random_support(50, 9, 3, "w"))
    assert torch.equal(top_free_support(scores, 9, "w", nothing), top_support(scores, 9))


def test_a_free_random_support_is_what_it_always_was_and_differs_by_seed_and_name():
    taken = torch.arange(0, 1000, 3)
    first = random_free_support(1000, 8, 7, "a", taken)
    assert first.tolist() == [1, 83, 167, 322, 356, 398, 427, 703]
    assert not torch.equal(first, random_free_support(1000, 8, 8, "a", taken))
    assert not torch.equal(first, random_free_support(1000, 8, 7, "b", taken)), "equal sizes, other weights"


def test_every_free_position_is_drawn_about_equally_often():
    counts, taken = torch.zeros(16), torch.tensor([0, 3, 4, 15])
    for seed in range(1500):
        counts[random_free_support(16, 3, seed, "w", taken).long()] += 1
    assert not bool(counts[taken].any())
    counts = counts[counts > 0]
    assert len(counts) == 12 and float(((counts - 375) ** 2 / 375).sum()) < 31.3  # chi-squared, 11 degrees, p = 0.001


def test_too_few_free_entries_are_refused_by_name():
    taken = torch.tensor([1, 2, 6])
    with pytest.raises(AdapterError, match=r"^vision\.w: 6 entries are asked for, 5 of 8 are free"):
        random_free_support(8, 6, 0, "vision.w", taken)
    with pytest.raises(AdapterError, match=r"^vision\.w: -1 entries are asked for"):
        random_free_support(8, -1, 0, "vision.w", taken)
    with pytest.raises(AdapterError, match=r"^vision\.w: 6 entries are asked for, 5 of 8 are free"):
        top_free_support(torch.ones(2, 4), 6, "vision.w", taken)
    assert random_free_support(8, 5, 0, "vision.w", taken).tolist() == [0, 3, 4, 5, 7]
    assert top_free_support(torch.ones(2, 4), 5, "vision.w", taken).tolist() == [0, 3, 4, 5, 7]


@pytest.mark.parametrize("taken", [[0, 8], [-1, 3]])
def test_positions_taken_on_another_model_and_scores_that_are_no_numbers_are_refused_by_name(taken):
    for draw in (
        lambda t: random_free_support(8, 2, 0, "vision.w", t),
        lambda t: top_free_support(torch.ones(8), 2, "vision.w", t),
    ):
        with pytest.raises(AdapterError, match=r"^vision\.w: positions taken lie outside its 8 entries"):
            draw(torch.tensor(taken))
    with pytest.raises(AdapterError, match=r"^vision\.w: 1 of 2 scores are not numbers"):
        top_free_support(torch.tensor([0.0, float("nan"), 1.0]), 1, "vision.w", torch.tensor([0]))


def test_positions_taken_are_those_of_all_adapters_on_this_weight():
    deltas = [delta_of({"p": {5: 1.0, 2: 0.0}}), delta_of({"q": {9: 1.0}}), delta_of({"q": {}, "p": {2: 1.0, 0: 1.0}})]
    assert taken_positions(deltas, "p").tolist() == [0, 2, 5] and taken_positions(deltas, "q").tolist() == [9]
    assert taken_positions(deltas, "r").tolist() == [] and taken_positions([], "p").dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_on_free_entries_never_touch_each_others_weights(towers, digest, dtype):
    module, sizes, deltas = towers(dtype=dtype), {UP: 128, FUSED: 192}, []
    before = digest(module)
    for seed in range(3):
        taken = {name: taken_positions(deltas, name) for name in sizes}
        scores = module.get_parameter(UP).detach().abs()
        support = {UP: top_free_support(scores, 40, UP, taken[UP])}
        deltas.append(SparseDelta(support | {FUSED: random_free_support(192, 60, 0, FUSED, taken[FUSED])}))
        deltas[-1].values.data = torch.randn(100, generator=torch.Generator().manual_seed(seed))
    assert all(p.total.shared == 0 == p.total.cosine for p in interference(deltas, ["a", "b", "c"], sizes).pairs)
    alone = []
    for delta in deltas:
        with attached(module, delta):
            alone.append({n: module.get_parameter(n).detach().view(-1)[i.long()] for n, i, _ in delta.parts()})
    with attached(module, compose(deltas, [1, 1, 1], "disjoint")):
        together = digest(module)
        for delta, rows in zip(deltas, alone, strict=True):
            assert all(torch.equal(module.get_parameter(n).view(-1)[i.long()], rows[n]) for n, i, _ in delta.parts())
    with attached(module, *deltas):
        assert digest(module) == together
    assert digest(module) == before
    with pytest.raises(AdapterError, match=rf"^{UP}: 9 entries are asked for, 8 of 128 are free"):
        random_free_support(128, 9, 0, UP, taken_positions(deltas, UP))


@pytest.mark.gpu
def test_on_a_gpu_the_free_supports_are_the_same():
    delta = delta_of({"p": {0: 1.0, 3: -2.0}})
    assert torch.equal(taken_positions([delta.cuda()], "p"), torch.tensor([0, 3], dtype=torch.int32))
    scores = torch.tensor([1.0, 2.0, 3.0]).cuda()
    assert top_free_support(scores, 1, "w", torch.tensor([2]).cuda()).tolist() == [1]
