import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kusabi.adapters import support
from kusabi.adapters.allocation import allocate, share_budget, whole_units
from kusabi.errors import AdapterError


def poured(budget, sizes, weights):
    """Reference: targets by how soon they run full; then floors and largest fractions of what the others divide."""
    left, shares = Fraction(min(budget, sum(sizes))), [0] * len(sizes)
    rows = [i for i in range(len(sizes)) if weights[i] > 0]
    rest = [i for i in range(len(sizes)) if weights[i] == 0]
    for group, parts in ((rows, weights), (rest, sizes)):
        group = sorted((i for i in group if sizes[i]), key=lambda i: Fraction(sizes[i]) / Fraction(parts[i]))
        whole = Fraction(0)
        while group:
            whole = sum((Fraction(parts[i]) for i in group), Fraction(0))
            if left * Fraction(parts[group[0]]) / whole < sizes[group[0]]:
                break
            shares[group[0]] = sizes[group[0]]
            left -= sizes[group.pop(0)]
        for i in group:
            shares[i] = math.floor(left * Fraction(parts[i]) / whole)
        fractions = {i: left * Fraction(parts[i]) / whole - shares[i] for i in group}
        for _ in range(int(left) - sum(shares[i] for i in group) if group else 0):
            lucky = max(sorted(fractions), key=lambda i: fractions[i])
            shares[lucky] += 1
            fractions[lucky] = -1
        left = Fraction(min(budget, sum(sizes)) - sum(shares))
    return shares


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20), st.integers(0, 10**10))
def test_a_budget_is_shared_whole_in_proportion_and_within_every_weight(sizes, budget):
    shares, total = allocate(budget, sizes), sum(sizes)
    assert sum(shares) == min(budget, total)
    for share, size in zip(shares, sizes, strict=True):
        assert 0 <= share <= size
        assert abs(share * total - min(budget, total) * size) < total, "off by a whole entry"


def test_a_remainder_goes_to_the_largest_fraction_and_of_equals_to_the_first():
    assert allocate(2, [10, 10, 10]) == [1, 1, 0]
    assert allocate(5, [10, 20, 10]) == [1, 3, 1]
    assert allocate(4, [10, 25, 15]) == [1, 2, 1]


WEIGHTS = st.one_of(st.just(0.0), st.floats(0, 1e300), st.integers(0, 9), st.just(1.0))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), WEIGHTS), max_size=8), st.integers(0, 300))
@example([(3, 5e-324), (3, 1e300)], 4)
def test_a_weighted_budget_is_shared_as_if_poured_into_glasses(rows, budget):
    sizes, weights = [size for size, _ in rows], [weight for _, weight in rows]
    shares = allocate(budget, sizes, weights)
    assert sum(shares) == min(budget, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    assert shares == poured(budget, sizes, weights)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 200), st.integers(-3, 3))
def test_sizes_as_weights_of_any_scale_are_the_rule_by_size(sizes, budget, power):
    assert allocate(budget, sizes, [size * 2.0**power for size in sizes]) == allocate(budget, sizes)


def test_what_a_full_target_cannot_take_goes_to_the_others_in_proportion():
    assert allocate(13, [3, 100, 100], [100, 1, 4]) == [3, 2, 8]
    assert allocate(100, [3, 5, 100], [100, 100, 1]) == [3, 5, 92]
    assert allocate(9, [2, 3, 100], [8, 5, 1]) == [2, 3, 4], "the second runs full by what the first leaves over"


def test_targets_without_weight_come_last_and_by_size():
    assert allocate(4, [4, 30, 10], [1, 0, 0]) == [4, 0, 0]
    assert allocate(8, [4, 30, 10], [1, 0, 0]) == [4, 3, 1]
    assert allocate(4, [30, 10], [0, 0]) == [3, 1]


@pytest.mark.parametrize("budget", [0, 1, 6, 7])
def test_the_extremes_of_a_budget_are_met(budget):
    for weights in (None, [1, 1, 1], [0, 0, 1e-30]):
        assert sum(allocate(budget, [1, 2, 3], weights)) == min(budget, 6)
    assert allocate(budget, []) == []


def test_the_rules_by_name_share_by_size_by_number_and_by_the_squares_of_the_gradient():
    sizes = {"a": 4, "b": 12}
    gradients = {"b": torch.full((3, 4), 1.0), "a": torch.tensor([3.0, -3.0, 3.0, -3.0]), "c": torch.ones(2)}
    assert share_budget("size", 8, sizes) == {"a": 2, "b": 6}
    assert share_budget("uniform", 8, sizes) == {"a": 4, "b": 4}
    assert share_budget("uniform", 12, sizes) == {"a": 4, "b": 8}
    assert share_budget("energy", 4, sizes, gradients) == {"a": 3, "b": 1}  # 36 : 12
    assert share_budget("energy", 8, sizes, gradients) == {"a": 4, "b": 4}


def test_energy_is_summed_wide_enough_for_half_precision():
    gradients = {
        "a": torch.full((40,), 300.0, dtype=torch.float16),  # 300^2 is beyond float16
        "b": torch.full((40,), 1e-30),  # squared, below float32
        "c": torch.full((40,), 2e-30, dtype=torch.bfloat16),
    }
    assert share_budget("energy", 3, {"a": 40}, gradients) == {"a": 3}
    assert share_budget("energy", 5, {"b": 40, "c": 40}, gradients) == {"b": 1, "c": 4}
    assert share_budget("energy", 5, {"a": 40, "b": 40, "c": 40}, gradients) == {"a": 5, "b": 0, "c": 0}


def test_every_target_without_a_usable_gradient_is_named():
    gradients = {"a": torch.tensor([1.0, math.nan]), "b": torch.tensor([-math.inf]), "d": torch.ones(1)}
    with pytest.raises(AdapterError) as caught:
        share_budget("energy", 2, {"a": 2, "b": 1, "c": 5, "d": 1}, gradients)
    message = str(caught.value)
    assert "a: its gradient is not finite; b: its gradient is not finite; c: no gradient" in message
    assert "d:" not in message
    with pytest.raises(AdapterError, match="a: no gradient"):
        share_budget("energy", 1, {"a": 2})


def test_an_unknown_allocation_is_refused_with_the_known_ones():
    unknown: Any = "entropy"
    with pytest.raises(AdapterError, match="'entropy' is not known; write size, uniform, energy"):
        share_budget(unknown, 1, {"a": 2})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=8), st.integers(0, 400))
def test_shares_in_whole_units_waste_less_than_one_unit_and_never_exceed_the_budget(rows, budget):
    sizes, units = [size for size, _ in rows], [min(rows_) for rows_ in rows]
    shares = allocate(budget, sizes)
    whole = whole_units(shares, sizes, units)
    wasted = sum(shares) - sum(whole)
    assert wasted >= 0
    for before, after, size, unit in zip(shares, whole, sizes, units, strict=True):
        assert after in (before // unit * unit, before // unit * unit + unit, size) and after <= size
        if after < before:  # cut, and one more unit was not affordable
            assert wasted < min(unit, size - after)


def test_shares_below_a_unit_everywhere_still_buy_units_for_some():
    assert whole_units([3, 4, 4], [80, 80, 80], [8, 8, 8]) == [0, 8, 0]
    assert whole_units([3, 3, 5], [80, 80, 80], [4, 8, 10]) == [4, 0, 0], "three quarters of a unit go before a half"
    assert whole_units([7, 9], [7, 9], [2, 4]) == [7, 9], "whole weights stay whole"


def test_allocate_is_found_where_it_always_was():
    assert support.allocate is allocate
