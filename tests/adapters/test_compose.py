import copy
import itertools
from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kusabi.adapters.attach import attached
from kusabi.adapters.compose import check_composable, compose, joint_names
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError

FUSED, OUT, UP = "vision.3.self_attn.in_proj_weight", "vision.3.self_attn.out_proj.weight", "vision.2.linear1.weight"
SIZES = {"b.10.w": 9, "b.2.w": 12, "a": 6}
EIGHTHS = st.integers(-16, 16).map(lambda i: i / 8)  # sums and products of a few are exact in every float
ANY = st.floats(-4, 4, width=32)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def delta_of(entries):
    # {name: {index: value}} in the given order of names
    delta = SparseDelta({name: torch.tensor(sorted(row), dtype=torch.int64) for name, row in entries.items()})
    delta.values.data.copy_(torch.tensor([row[i] for row in entries.values() for i in sorted(row)]))
    return delta


@st.composite
def entries(draw, values):
    names = draw(st.lists(st.sampled_from(sorted(SIZES)), min_size=1, unique=True))
    return {name: draw(st.dictionaries(st.integers(0, SIZES[name] - 1), values, max_size=8)) for name in names}


@st.composite
def weighted(draw, values, weights):
    rows = draw(st.lists(entries(values), min_size=1, max_size=4))
    return rows, draw(st.lists(weights, min_size=len(rows), max_size=len(rows)))


def bits(delta):
    values = delta.values.detach().view(torch.int32).tolist()
    return delta.names, delta.slices, delta.indices.tolist(), values, delta.indices.dtype, delta.values.dtype


def as_entries(delta):
    return {name: dict(zip(i.tolist(), v.tolist(), strict=True)) for name, i, v in delta.parts()}


def on(*names, seed=0, k=24):
    random = torch.Generator().manual_seed(seed)
    delta = SparseDelta({name: torch.randperm(64, generator=random)[:k].sort().values for name in names})
    delta.values.data = torch.randn(len(delta), generator=random) * 0.1
    delta.values.data[::5] = 0.0
    return delta


def disjoint_deltas():
    random = torch.Generator().manual_seed(0)
    cut = {name: torch.randperm(128 if name == UP else 192, generator=random) for name in (FUSED, UP)}
    deltas = [SparseDelta({n: cut[n][30 * i : 30 * i + 30].sort().values for n in cut}) for i in range(3)]
    for delta in deltas:
        delta.values.data = torch.randn(len(delta), generator=random) * 0.1
        delta.values.data[::7] = -0.0
    return deltas


def dense_sum(rows, weights):
    dense = {name: torch.zeros(size, dtype=torch.float64) for name, size in SIZES.items()}
    for row, weight in zip(rows, weights, strict=True):
        for name, values in row.items():
            dense[name] += weight * torch.tensor([values.get(i, 0.0) for i in range(SIZES[name])], dtype=torch.float64)
    return dense


def dense_ties(rows, weights, density):
    # In exact numbers on whole vectors: trim, elect, mean of those that agree. Also the support after trimming.
    vectors = []
    for row, weight in zip(rows, weights, strict=True):
        own = [(name, index) for name, values in row.items() for index in sorted(values)]
        ranked = sorted(range(len(own)), key=lambda i: (-abs(row[own[i][0]][own[i][1]]), i))
        kept = [own[i] for i in ranked[: max(1, round(density * len(own)))]]
        vectors.append({p: Fraction(weight) * Fraction(row[p[0]][p[1]]) for p in kept})
    merged = {}
    for place in [(name, index) for name, size in SIZES.items() for index in range(size)]:
        column = [vector.get(place, Fraction(0)) for vector in vectors]
        agreeing = [value for value in column if value * sum(column) > 0]
        merged[place] = sum(agreeing) / len(agreeing) if agreeing else Fraction(0)
    return merged, {place for vector in vectors for place in vector}


@settings(max_examples=30, deadline=None)
@given(weighted(ANY | EIGHTHS, EIGHTHS | st.floats(-2, 2)))
def test_a_sum_is_the_sum_of_the_dense_tensors_on_the_union_of_the_supports_rounded_once(case):
    rows, wanted = case[0], dense_sum(*case)
    found = as_entries(compose([delta_of(row) for row in rows], case[1], sizes=SIZES))
    assert found.keys() == {name for row in rows for name in row}
    for name, values in found.items():
        assert values.keys() == {index for row in rows for index in row.get(name, {})}
        for index, value in values.items():
            assert value == pytest.approx(wanted[name][index].item(), rel=2**-24, abs=1e-14), "half a unit at the end"


@settings(max_examples=20, deadline=None)
@given(weighted(EIGHTHS, st.sampled_from([1, 1, 0.5, -1, 2])), st.sampled_from([0.01, 0.2, 0.5, 0.75, 1.0]))
def test_ties_is_ties_on_dense_tensors(case, density):
    rows, weights = case
    composed = compose([delta_of(row) for row in rows], weights, "ties", density=density)
    wanted, support = dense_ties(rows, weights, density)
    found = {(name, i): v for name, values in as_entries(composed).items() for i, v in values.items()}
    assert found.keys() == support, "what every delta trimmed is gone, what cancels stays"
    assert all(value == torch.tensor(float(wanted[place])).item() for place, value in found.items())


def test_ties_trims_elects_and_averages_the_agreeing_as_worked_out_by_hand():
    a = delta_of({"w": {0: 3.0, 1: 1.0, 2: -2.0, 3: 0.5}})
    b = delta_of({"w": {0: -1.0, 1: 3.0, 2: -4.0, 5: 0.25}})
    c = delta_of({"w": {0: -1.5, 1: 0.25, 2: 5.0, 5: -0.5}})
    trimmed = compose([a, b, c], [1, 1, 1], "ties", density=0.5)  # keeps {0, 2}, {1, 2}, {0, 2}
    assert as_entries(trimmed) == {"w": {0: 3.0, 1: 3.0, 2: -3.0}}  # 3 beats -1.5; -2 and -4 beat 5
    whole = as_entries(compose([a, b, c], [1, 1, 1], "ties"))["w"]
    assert whole == pytest.approx({0: 3.0, 1: 4.25 / 3, 2: -3.0, 3: 0.5, 5: -0.5})
    assert as_entries(compose([a, b, c], [0.4] * 3, "ties", density=0.5))["w"][1] == pytest.approx(1.2)
    split = [delta_of({"w": {0: 2.0, 1: 1.0}}), delta_of({"w": {0: -1.0}}), delta_of({"w": {0: -1.0}})]
    assert as_entries(compose(split, [1, 1, 1], "ties")) == {"w": {0: 0.0, 1: 1.0}}, "no majority"


def test_the_trim_is_over_the_whole_delta_and_of_equal_magnitudes_keeps_the_earlier():
    delta = delta_of({"big": {0: 5.0, 1: -6.0}, "small": {0: 0.1, 1: 0.2}})
    assert as_entries(compose([delta], [1], "ties", density=0.5)) == {"big": {0: 5.0, 1: -6.0}, "small": {}}
    level = delta_of({"z": {3: -1.0, 7: 1.0}, "a": {0: 1.0, 1: -1.0}})
    assert as_entries(compose([level], [1], "ties", density=0.5)) == {"z": {3: -1.0, 7: 1.0}, "a": {}}
    assert as_entries(compose([level], [1], "ties", density=0.001))["z"] == {3: -1.0}, "at least one is left"


@settings(max_examples=20, deadline=None)
@given(
    entries(st.floats(width=32, allow_nan=False, allow_infinity=False)), st.sampled_from(["sum", "ties", "disjoint"])
)
def test_one_delta_with_weight_1_comes_back_bitwise(row, how):
    delta, beside = delta_of(row), delta_of({"beside": {0: 1.0}})
    assert bits(compose([delta], [1], how)) == bits(delta)
    minus_zero = delta_of({"w": {1: -0.0}})
    for deltas in ([minus_zero], [beside, minus_zero], [delta_of({"w": {0: 1.0}}), minus_zero]):
        assert str(as_entries(compose(deltas, [1] * len(deltas), how))["w"][1]) == "-0.0"


@settings(max_examples=25, deadline=None)
@given(weighted(st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-3, 3)))
@example(([{"a": {0: value}} for value in (1e16, 1.0, -1e16, 3.0)], [1, 1, 1, 1]))  # they swallow each other
def test_the_order_of_the_deltas_never_matters_not_by_one_bit(case):
    pairs = [(delta_of(row), weight) for row, weight in zip(*case, strict=True)]
    orders = (pairs, pairs[::-1], pairs[1:] + pairs[:1])
    for rule in (compose, partial(compose, how="ties"), partial(compose, how="ties", density=0.4)):
        one, two, three = (bits(rule([d for d, _ in o], [w for _, w in o])) for o in orders)
        assert one == two == three


@pytest.mark.parametrize("how", ["sum", "ties"])
def test_entries_that_cancel_stay_in_the_support_with_value_0(towers, digest, how):
    delta, module = on(FUSED, UP), towers()
    before = digest(module)
    composed = compose([delta, delta], [1, -1], how)
    assert bits(composed) == bits(SparseDelta({n: i for n, i, _ in delta.parts()})), "0.0, not -0.0"
    with attached(module, composed):
        assert digest(module) == before


def test_a_negative_weight_forgets_and_weight_0_is_exactly_zero_shot(towers, digest):
    module, a, b = towers(), on(FUSED, UP), on(FUSED, seed=1)
    before = digest(module)
    forgotten = as_entries(compose([compose([a, b], [1, 1]), b], [1, -1]))
    for name, row in as_entries(a).items():
        assert {i: forgotten[name][i] for i in row} == pytest.approx(row, abs=1e-7)
    for how in ("sum", "ties"):
        with attached(module, compose([a, b], [0, 0], how)):
            assert digest(module) == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_attaching_the_sum_of_two_equals_attaching_both_bitwise(towers, digest, dtype):
    module, a, b = towers(dtype=dtype), on(FUSED, UP), on(FUSED, OUT, seed=1)
    with attached(module, compose([a, b], [1, 1])):
        composed = digest(module)
    with attached(module, a, b):
        assert digest(module) == composed


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(3, 6))
def test_attaching_the_sum_of_many_equals_attaching_all_within_the_stated_tolerance(towers, seed, count):
    module, deltas = towers(), [on(FUSED, UP, seed=seed + i, k=40) for i in range(count)]
    frozen = {name: module.get_parameter(name).detach().clone().double() for name in (FUSED, UP)}
    with attached(module, compose(deltas, [1] * count)):
        composed = {name: module.get_parameter(name).detach().clone().double() for name in frozen}
    with attached(module, *deltas):
        for name, original in frozen.items():
            mass = torch.zeros(original.numel(), dtype=torch.float64)
            for delta in deltas:
                mass[delta.indices[delta.slices[name]].long()] += delta.values.data[delta.slices[name]].abs().double()
            mass = mass.view_as(original)
            fold = 2**-23 * (original.abs() + mass)  # folding rounds once more on either side
            gap = (module.get_parameter(name).detach().double() - composed[name]).abs()
            assert bool((gap <= (count - 1) * 2**-23 * mass + fold).all()) and bool((mass > 0).any())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["sum", "ties", "disjoint"])
def test_attaching_disjoint_supports_composed_equals_attaching_all_in_any_order_bitwise(towers, digest, dtype, how):
    module, deltas = towers(dtype=dtype), disjoint_deltas()
    with attached(module, compose(deltas, [1, 1, 1], how)):
        composed = digest(module)
    assert digest(module) != composed
    for order in itertools.permutations(deltas):
        assert bits(compose(order, [1, 1, 1], how)) == bits(compose(deltas, [1, 1, 1], "disjoint"))
        with attached(module, *order):
            assert digest(module) == composed


def test_composing_leaves_the_given_deltas_alone_and_answers_with_a_trainable_one_of_its_own():
    delta = on(FUSED, UP)
    before, composed = bits(delta), compose([delta], [1])
    composed.values.data.fill_(9.0)
    composed.indices.zero_()
    assert composed.values.requires_grad and composed.values.is_leaf and bits(delta) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_cast_deltas_compose_to_fp32_with_integer_indices(dtype):
    delta = delta_of({"w": {257: 0.5, 2**24 + 1: -0.25}})
    composed = compose([copy.deepcopy(delta).to(dtype), delta], [1, 1])
    assert bits(composed) == bits(delta_of({"w": {257: 1.0, 2**24 + 1: -0.5}}))


def test_targets_keep_an_order_all_agree_on_and_are_sorted_by_layer_otherwise():
    one, same, other = (delta_of({n: {0: 1.0} for n in names}) for names in (("b.2", "a"), ("b.2", "a"), ("b.10", "c")))
    assert joint_names([one, same]) == ("b.2", "a")
    assert joint_names([one, same, other]) == joint_names([other, one]) == ("a", "b.2", "b.10", "c")
    spelt = [delta_of({n: {0: 1.0}}) for n in ("b.2", "b.02", "b.x", "b.²")]
    assert joint_names(spelt) == joint_names(spelt[::-1]) == ("b.02", "b.2", "b.x", "b.²")


def test_overlapping_supports_are_no_disjoint_composition_and_every_target_is_named_with_its_count():
    a = delta_of({"p": {0: 1.0, 1: 1.0, 2: 1.0}, "q": {0: 1.0}, "r": {5: 1.0}})
    b, c = delta_of({"q": {0: 0.0, 3: 1.0}, "p": {1: 1.0, 2: 2.0}}), delta_of({"p": {2: 1.0}, "r": {6: 1.0}})
    with pytest.raises(AdapterError, match=r"overlap in p \(2 entries\), q \(1 entry\);"):
        compose([a, b, c], [1, 1, 1], "disjoint")


@pytest.mark.parametrize(
    ("deltas", "weights", "settings", "message"),
    [
        (0, [], {}, "no adapter to compose"),
        (2, [1], {}, "2 adapters and 1 weights"),
        (2, [1, float("nan")], {}, "finite numbers, not 1.0, nan"),
        (1, [1], {"how": "mean"}, "how 'mean' is not understood; write sum, ties, disjoint"),
        (1, [1], {"how": "ties", "density": float("nan")}, "at most 1, not nan"),
        (1, [1], {"how": "sum", "density": 0.5}, "density is a setting of 'ties'"),
    ],
)
def test_what_cannot_be_composed_is_refused(deltas, weights, settings, message):
    with pytest.raises(AdapterError, match=message):
        compose([on(UP) for _ in range(deltas)], weights, **settings)
    with pytest.raises(AdapterError, match="on cpu and meta; move them to one device first"):
        compose([on(UP).to("meta"), on(UP)], [1, 1])


def test_deltas_of_another_model_are_refused_with_every_target():
    a, b = delta_of({"p": {7: 1.0}, "q": {8: 1.0}, "none": {}}), delta_of({"p": {8: 1.0}, "x.y": {0: 1.0}})
    for refuse in (lambda s: check_composable([[a], [b]], s), lambda s: compose([a, b], [1, 1], sizes=s)):
        with pytest.raises(AdapterError) as refusal:
            refuse({"p": 8, "q": 8, "none": 0})
        assert str(refusal.value).split("model: ")[1].split("; ") == [
            "adapter 1, q: index 8 is outside its 8 entries",
            "adapter 2, p: index 8 is outside its 8 entries",
            "adapter 2, x.y: the model has no such weight",
        ]
        refuse({"p": 9, "q": 9, "none": 0, "x.y": 1})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_and_results_that_are_not_finite_are_refused_by_name(bad):
    a, b = delta_of({"p": {0: 1.0, 1: bad}, "q": {0: 1.0}}), delta_of({"q": {0: bad}, "p": {0: 1.0}})
    with pytest.raises(
        AdapterError, match=r": adapter 1, p: values that are not finite; adapter 2, q: values [a-z ]*$"
    ):
        compose([a, b], [1, 0])
    with pytest.raises(AdapterError, match=r"too large for fp32, take smaller weights: q$"):
        compose([delta_of({"p": {0: 1e-30}, "q": {0: 1.0}})], [1e39])


@pytest.mark.gpu
def test_on_a_gpu_the_result_is_the_same_bitwise_and_stays_there():
    deltas = [on(FUSED, UP), on(FUSED, OUT, seed=1), on(UP, seed=2)]
    moved = [copy.deepcopy(delta).cuda() for delta in deltas]
    for how in ("sum", "ties"):
        found = compose(moved, [1, -0.5, 0.3], how)
        assert found.values.is_cuda and found.indices.is_cuda
        assert bits(found.cpu()) == bits(compose(deltas, [1, -0.5, 0.3], how))
