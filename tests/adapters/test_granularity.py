import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.granularity import choose, choose_random, unit_shape
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError

GRANULARITIES = ["entry", "row", "column", "2x2", "1x3", "3x2", "output", "struct"]
SHAPES = [(6, 7), (4, 4), (9, 2), (1, 5), (5, 1), (4, 2, 2, 2), (5,), (12, 3), (), (0, 3), (3, 0)]


def as_matrix(shape):
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def tiles(granularity, rows, columns):
    """Reference: the sets of flat positions that go together, in order."""
    high, wide = {"row": (1, columns), "column": (rows, 1)}.get(granularity) or map(int, granularity.split("x"))
    return [
        [i * columns + j for i in range(top, min(top + high, rows)) for j in range(left, min(left + wide, columns))]
        for top in range(0, rows, high or 1)
        for left in range(0, columns, wide or 1)
    ]


def greedy(units, strengths, k):
    """Reference: strongest first, each whole or not at all."""
    chosen = []
    for unit, _ in sorted(zip(units, strengths, strict=True), key=lambda row: (-row[1], row[0])):
        chosen += unit if len(chosen) + len(unit) <= k else []
    return sorted(chosen)


@st.composite
def scored(draw, shapes=tuple(SHAPES)):
    shape = draw(st.sampled_from(shapes))
    size = math.prod(shape)
    values = draw(st.lists(st.integers(-4, 9), min_size=size, max_size=size))
    return torch.tensor(values, dtype=torch.float32).reshape(shape), draw(st.integers(0, size + 2))


def assert_support(support, shape, k):
    assert support.dtype == torch.int32 and support.ndim == 1 and support.device.type == "cpu"
    assert len(support) <= k
    assert bool((support[1:] > support[:-1]).all())
    assert len(support) == 0 or 0 <= int(support[0]) <= int(support[-1]) < math.prod(shape)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@settings(max_examples=25, deadline=None)
@given(scored(), st.sampled_from(["sum", "mean"]), st.booleans(), st.integers(0, 2**63 - 1))
def test_supports_are_distinct_rising_inside_the_weight_and_within_the_budget(granularity, case, by, largest, seed):
    scores, k = case
    random = choose_random(scores.shape, k, granularity, seed=seed, name="w")
    for support in (choose(scores, k, granularity, by=by, largest=largest), random):
        assert_support(support, scores.shape, k)
        if granularity in ("entry", "output"):
            assert len(support) == min(k, scores.numel())
        if k >= scores.numel():
            assert support.tolist() == list(range(scores.numel()))


@pytest.mark.parametrize("granularity", ["row", "column", "2x2", "1x3", "3x2", "50x50"])
@settings(max_examples=50, deadline=None)
@given(scored(), st.sampled_from(["sum", "mean"]), st.booleans())
def test_units_are_taken_whole_by_their_scores_and_one_that_does_not_fit_is_passed_over(granularity, case, by, largest):
    scores, k = case
    units = [unit for unit in tiles(granularity, *as_matrix(scores.shape)) if unit]
    flat, sign = scores.flatten().tolist(), 1 if largest else -1
    strengths = [sign * sum(flat[i] for i in unit) / (len(unit) if by == "mean" else 1) for unit in units]
    assert choose(scores, k, granularity, by=by, largest=largest).tolist() == greedy(units, strengths, k)


@pytest.mark.parametrize("granularity", ["row", "column", "2x2", "1x3"])
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHAPES), st.data())
def test_random_units_are_whole_and_leave_no_unit_that_would_still_fit(granularity, shape, data):
    k = data.draw(st.integers(0, math.prod(shape)))
    chosen = set(choose_random(shape, k, granularity, seed=data.draw(st.integers(0, 99)), name="w").tolist())
    for unit in filter(None, tiles(granularity, *as_matrix(shape))):
        assert chosen.issuperset(unit) or chosen.isdisjoint(unit)
        assert chosen.issuperset(unit) or len(chosen) + len(unit) > k


@settings(max_examples=80, deadline=None)
@given(scored(), st.booleans())
def test_every_output_gets_its_top_inputs_and_the_remainder_goes_to_the_largest_next(case, largest):
    scores, k = case
    rows, columns = as_matrix(scores.shape)
    matrix = (scores if largest else -scores).reshape(rows, columns).tolist()
    ladders = [sorted(range(columns), key=lambda j: (-matrix[i][j], j)) for i in range(rows)]
    rounds = [[(-matrix[i][ladders[i][place]], i, ladders[i][place]) for i in range(rows)] for place in range(columns)]
    wanted = [(i, j) for step in rounds for _, i, j in sorted(step)][:k]
    support = choose(scores, k, "output", largest=largest)
    assert support.tolist() == sorted(i * columns + j for i, j in wanted)


def test_a_remainder_over_outputs_does_not_all_fall_to_the_first_of_a_fused_weight():
    fused = torch.ones(12, 5)  # q, k and v on top of each other
    fused[8:, 2] = 3.0
    assert choose(fused, 4, "output").tolist() == [8 * 5 + 2, 9 * 5 + 2, 10 * 5 + 2, 11 * 5 + 2]


@settings(max_examples=80, deadline=None)
@given(scored(), st.booleans())
def test_a_structured_support_is_the_diagonal_then_the_lines_of_the_largest_mean(case, largest):
    scores, k = case
    rows, columns = as_matrix(scores.shape)
    matrix = (scores if largest else -scores).reshape(rows, columns).tolist()
    diagonal = [i * (columns + 1) for i in range(min(rows, columns))]
    flat = [score for row in matrix for score in row]
    if k <= len(diagonal):
        wanted = set(sorted(diagonal, key=lambda at: (-flat[at], at))[:k])
    else:
        wanted = set(diagonal)
        lines = [range(i * columns, (i + 1) * columns) for i in range(rows)]
        lines += [range(j, rows * columns, columns) for j in range(columns)]
        lines = [line for line in lines if len(line)]
        for _, line in sorted(enumerate(lines), key=lambda row: (-sum(flat[i] for i in row[1]) / len(row[1]), row[0])):
            if len(wanted | set(line)) <= k:
                wanted |= set(line)
    assert choose(scores, k, "struct", largest=largest).tolist() == sorted(wanted)


GOLDEN = {
    "entry": [1, 2, 5, 7, 12, 15, 23, 25, 27, 30, 32, 34, 36, 38, 40, 41],
    "row": [0, 1, 2, 3, 4, 5, 6, 28, 29, 30, 31, 32, 33, 34],
    "column": [4, 6, 11, 13, 18, 20, 25, 27, 32, 34, 39, 41],
    "2x2": [14, 15, 18, 19, 20, 21, 22, 25, 26, 27, 32, 33, 34, 39, 40, 41],
    "1x4": [14, 15, 16, 17, 21, 22, 23, 24, 35, 36, 37, 38, 39, 40, 41],
    "output": [0, 4, 6, 10, 11, 13, 14, 17, 20, 25, 27, 28, 29, 35, 37, 39],
    "struct": [0, 5, 8, 12, 16, 19, 24, 26, 28, 29, 30, 31, 32, 33, 34, 40],
}


@pytest.mark.parametrize("granularity", GOLDEN)
def test_random_units_are_what_they_always_were(granularity):
    support = choose_random((6, 7), 16, granularity, seed=7, name="vision.3.linear1.weight")
    assert support.tolist() == GOLDEN[granularity]


def test_single_random_entries_are_those_of_the_random_support():
    for k in (0, 3, 40, 42):
        assert torch.equal(choose_random((6, 7), k, seed=3, name="a"), random_support(42, k, 3, "a"))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_random_supports_of_equal_shapes_and_one_seed_differ_by_name_and_by_seed(granularity):
    def drawn(seed, name):
        before = torch.get_rng_state()
        support = choose_random((24, 24), 144, granularity, seed=seed, name=name).tolist()
        assert torch.equal(before, torch.get_rng_state())
        return support

    assert drawn(0, "layer.0.q") == drawn(0, "layer.0.q")
    assert drawn(0, "layer.0.q") != drawn(0, "layer.1.q")
    assert drawn(0, "layer.0.q") != drawn(1, "layer.0.q")


@pytest.mark.parametrize(("granularity", "k"), [("row", 6), ("column", 9), ("2x2", 8), ("1x3", 6), ("output", 8)])
def test_every_random_unit_is_drawn_about_equally_often(granularity, k):
    shape, counts = (6, 6), torch.zeros(36)
    for seed in range(300):
        counts[choose_random(shape, k, granularity, seed=seed, name="w").long()] += 1
    units = [range(i, i + 1) for i in range(36)] if granularity == "output" else tiles(granularity, *shape)
    hits = torch.tensor([float(counts[unit[0]]) for unit in units])
    per_draw = {"row": 1, "column": 1, "2x2": 2, "1x3": 2, "output": 8}[granularity]
    assert float(hits.sum()) == 300 * per_draw
    expected = 300 * per_draw / len(units)
    assert float(((hits - expected) ** 2 / expected).sum()) < len(units) + 5 * math.sqrt(2 * len(units))


@pytest.mark.parametrize("granularity", ["row", "column", "2x2", "1x3", "7x5"])
@pytest.mark.parametrize("by", ["sum", "mean"])
def test_equal_units_tie_whatever_their_sums_round_to(granularity, by):
    shape = (37, 35) if "x" not in granularity else (42, 30)
    units = tiles(granularity, *shape)
    wanted = sorted(position for unit in units[:3] for position in unit)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose(torch.full(shape, 0.1, dtype=dtype), len(wanted), granularity, by=by).tolist() == wanted


def test_a_large_entry_does_not_swallow_the_difference_between_two_units():
    scores = torch.tensor([[2.0**24, 0.0, 0.0], [2.0**24, 0.5, 0.25], [2.0**24, 0.5, 0.0]])  # equal sums in fp32
    assert choose(scores, 3, "row").tolist() == [3, 4, 5]


def test_ragged_units_compete_by_sum_or_by_mean():
    scores = torch.tensor([[3.0, 3.0, 5.0], [3.0, 3.0, 5.0]])
    assert choose(scores, 4, "2x2").tolist() == [0, 1, 3, 4]
    assert choose(scores, 4, "2x2", by="mean").tolist() == [2, 5], "and the square no longer fits"


def test_a_budget_below_one_unit_is_left_unspent():
    for granularity in ("row", "2x4"):
        assert choose(torch.ones(4, 4), 3, granularity).tolist() == []
        assert choose_random((4, 4), 3, granularity, seed=0, name="w").tolist() == []


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_scores_that_are_not_numbers_are_refused_by_name(granularity):
    scores = torch.ones(4, 4)
    scores[2, 1] = math.nan
    with pytest.raises(AdapterError, match=r"^vision\.proj: 1 of 16 scores"):
        choose(scores, 4, granularity, name="vision.proj")


@pytest.mark.parametrize("granularity", ["rows", "", "0x4", "4x", "4x4x4", "-1x2", "2 x 2", "٤x4", "1x9999999999"])
def test_a_granularity_that_is_not_known_is_refused_with_the_known_ones(granularity):
    for attempt in (
        lambda: choose(torch.ones(4, 4), 4, granularity),
        lambda: choose_random((4, 4), 4, granularity, seed=0, name="w"),
        lambda: unit_shape(granularity, (4, 4)),
    ):
        with pytest.raises(AdapterError, match="is not understood; write entry, row, column, output, struct, or a"):
            attempt()


def test_units_are_no_larger_than_the_weight():
    assert unit_shape("row", (6, 7)) == (1, 7)
    assert unit_shape("column", (8, 3, 2, 2)) == (8, 1)
    assert unit_shape("row", (8, 3, 2, 2)) == (1, 12)
    assert unit_shape("16x4", (6, 7)) == (6, 4)
    assert unit_shape("1x8", (6, 7)) == (1, 7)
    assert unit_shape("output", (6, 7)) == unit_shape("struct", (6, 7)) == unit_shape("entry", (6, 7)) == (1, 1)


def test_a_kernel_is_read_as_outputs_by_all_the_rest_however_it_is_stored():
    kernel = torch.zeros(3, 2, 2, 2)
    kernel[1, 0, 1, 1] = 5.0
    strided = kernel.to(memory_format=torch.channels_last)
    for scores in (kernel, strided):
        assert choose(scores, 8, "row").tolist() == list(range(8, 16))
        assert choose(scores, 3, "column").tolist() == [3, 11, 19]
        assert choose(scores, 2, "1x2").tolist() == [10, 11]


@pytest.mark.gpu
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_on_a_gpu_the_support_is_the_same(granularity):
    scores = torch.randn(130, 70, generator=torch.Generator().manual_seed(0)).abs()
    for k in (0, 5, 700, 130 * 70):
        assert torch.equal(choose(scores.cuda(), k, granularity), choose(scores, k, granularity))


@pytest.mark.parametrize("granularity", ["entry", "row", "column", "2x2", "1x3", "output"])
@settings(max_examples=25, deadline=None)
@given(scored(), st.data())
def test_units_with_a_taken_entry_are_out_as_a_whole_and_the_others_stay_as_they_are(granularity, case, data):
    scores, k = case
    size, shape = scores.numel(), as_matrix(scores.shape)
    taken = sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=6))) if size else []
    closed, k = torch.tensor(taken, dtype=torch.int32), min(k, size - len(taken))
    by_score = choose(scores, k, granularity, taken=closed)
    by_chance = choose_random(scores.shape, k, granularity, seed=3, name="w", taken=closed)
    flat = scores.flatten().tolist()
    for support in (by_score, by_chance):
        assert_support(support, scores.shape, k)
        assert not set(support.tolist()) & set(taken)
    if granularity in ("entry", "output"):
        assert granularity == "output" or len(by_score) == len(by_chance) == k
    else:
        free = [u for u in tiles(granularity, *shape) if u and not set(u) & set(taken)]
        assert by_score.tolist() == greedy(free, [sum(flat[i] for i in unit) for unit in free], k)
        for unit in free:
            inside = set(unit) <= set(by_chance.tolist())
            assert inside or set(unit).isdisjoint(by_chance.tolist())
            assert inside or len(by_chance) + len(unit) > k
    nothing = torch.tensor([], dtype=torch.int32)
    assert torch.equal(choose(scores, k, granularity, taken=nothing), choose(scores, k, granularity))


def test_rows_give_their_free_entries_and_a_structure_goes_around_nothing():
    scores = torch.tensor([[9.0, 8.0, 1.0], [9.0, 8.0, 1.0]])
    assert choose(scores, 4, "output", taken=torch.tensor([0, 3])).tolist() == [1, 2, 4, 5]
    assert choose(scores, 4, "output", taken=torch.tensor([0, 1])).tolist() == [2, 3, 4], "a row has what it has"
    for refused in (
        lambda: choose(scores, 4, "struct", name="vision.proj", taken=torch.tensor([0])),
        lambda: choose_random((2, 3), 4, "struct", seed=0, name="vision.proj", taken=torch.tensor([0])),
    ):
        with pytest.raises(AdapterError, match=r"^vision.proj: granularity 'struct' crosses every row"):
            refused()
