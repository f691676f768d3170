import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.support import random_scores, random_support, scores, top_support
from kusabi.errors import AdapterError


def test_a_random_support_is_what_it_always_was():
    assert random_support(1000, 12, 7, "vision.3.linear1.weight").tolist() == [
        43,
        61,
        119,
        369,
        560,
        666,
        781,
        811,
        915,
        974,
        978,
        982,
    ]
    assert random_support(20, 12, 7, "vision.3.linear1.weight").tolist() == [1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 18, 19]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.data())
def test_a_random_support_is_distinct_rising_and_inside_the_weight(size, data):
    k = data.draw(st.integers(0, size))
    support = random_support(size, k, data.draw(st.integers(0, 2**63 - 1)), data.draw(st.text()))
    assert support.dtype == torch.int32 and support.shape == (k,)
    assert bool((support[1:] > support[:-1]).all())
    assert k == 0 or 0 <= int(support[0]) <= int(support[-1]) < size


def test_a_random_support_depends_on_seed_and_name_and_on_no_global_state():
    before = torch.get_rng_state(), str(np.random.get_state())
    first = random_support(4096, 64, 0, "a")
    torch.rand(3)
    assert torch.equal(first, random_support(4096, 64, 0, "a"))
    assert not torch.equal(first, random_support(4096, 64, 1, "a"))
    assert not torch.equal(first, random_support(4096, 64, 0, "b"))
    torch.set_rng_state(before[0])
    random_support(4096, 64, 0, "a")
    assert torch.equal(torch.get_rng_state(), before[0]) and str(np.random.get_state()) == before[1]


@pytest.mark.parametrize("k", [3, 9])  # drawn until complete; random keys sorted
def test_every_position_is_drawn_about_equally_often(k):
    counts = torch.zeros(12)
    for seed in range(1500):
        counts[random_support(12, k, seed, "w").long()] += 1
    expected = 1500 * k / 12
    assert float(((counts - expected) ** 2 / expected).sum()) < 31.3  # chi-squared, 11 degrees, p = 0.001


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_the_top_support_takes_the_largest_and_of_equals_the_first(given_scores, data):
    k = data.draw(st.integers(1, len(given_scores)))
    wanted = sorted(sorted(range(len(given_scores)), key=lambda i: (-given_scores[i], i))[:k])
    for dtype in (torch.float32, torch.bfloat16):
        support = top_support(torch.tensor(given_scores, dtype=dtype), k)
        assert support.tolist() == wanted and support.dtype == torch.int32


@pytest.mark.parametrize("largest", [True, False])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=40), st.data())
def test_either_end_of_the_scores_is_taken_with_ties_to_the_lower_index(largest, row, data):
    k = data.draw(st.integers(0, len(row) + 2))
    wanted = sorted(sorted(range(len(row)), key=lambda i: (-row[i] if largest else row[i], i))[:k])
    assert top_support(torch.tensor(row, dtype=torch.float32), k, largest=largest).tolist() == wanted


@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_constant_scores_give_the_first_positions(k):
    for score in (0.0, -0.0, 0.1, math.inf):
        support = top_support(torch.full((3, 4), score), k)
        assert support.tolist() == list(range(k)) and support.dtype == torch.int32
    assert top_support(torch.tensor([-0.0, 0.0, -0.0]), 2).tolist() == [0, 1], "zeros of both signs are equal"


def test_scores_that_are_not_numbers_are_refused_by_name_at_any_budget():
    broken = torch.tensor([[1.0, math.nan], [math.nan, 4.0]])
    for k in (0, 1, 4):
        with pytest.raises(AdapterError, match=r"^vision\.proj: 2 of 4 scores are not numbers"):
            top_support(broken, k, name="vision.proj")


def test_double_precision_is_ranked_as_such():
    assert top_support(torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64), 1).tolist() == [1]


def test_positions_of_a_strided_weight_are_those_of_its_entries_in_order():
    kernel = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    kernel[1, 2, 0, 3] = 999
    strided = kernel.to(memory_format=torch.channels_last)
    assert strided.stride() != kernel.stride()
    support = top_support(scores("magnitude", strided), 1)
    assert strided.take(support.long()).item() == 999 and support.tolist() == [kernel.flatten().argmax().item()]
    assert top_support(torch.arange(6.0).reshape(2, 3).T, 1).tolist() == [5]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=12))
def test_scores_are_sizes_of_weights_of_gradients_and_of_their_products(rows):
    weight = torch.tensor([w / 8 for w, _ in rows], dtype=torch.bfloat16)[None].requires_grad_()
    gradient = torch.tensor([g / 4 for _, g in rows])[None]
    wanted: dict[Any, list] = {
        "magnitude": [[abs(w / 8) for w, _ in rows]],
        "gradient": [[abs(g / 4) for _, g in rows]],
        "snip": [[abs(w / 8 * (g / 4)) for w, g in rows]],
    }
    for rule, values in wanted.items():
        found = scores(rule, weight, gradient)
        assert found.tolist() == values and found.dtype == torch.float32 and not found.requires_grad


def test_products_are_not_rounded_into_ties_nor_overflow_in_half_precision():
    weight = torch.tensor([1.0078125, 1.0], dtype=torch.bfloat16)
    gradient = torch.tensor([1.0078125, 1.015625], dtype=torch.bfloat16)  # both products are 1.015625 in bfloat16
    assert float(weight[0] * gradient[0]) == float(weight[1] * gradient[1])
    assert top_support(scores("snip", weight.flip(0), gradient.flip(0)), 1).tolist() == [1]
    large = torch.tensor([300.0, 200.0], dtype=torch.float16)
    assert scores("snip", large, large).tolist() == [90000.0, 40000.0]


def test_a_score_beyond_all_numbers_is_refused_with_the_name_of_its_target():
    weight, fine = torch.tensor([1.0, 0.0]), torch.ones(2)
    broken = torch.tensor([1.0, math.inf])
    cases: list[tuple[Any, torch.Tensor]] = [("gradient", broken), ("snip", broken), ("gradient", broken * 0)]
    for rule, gradient in cases:
        with pytest.raises(AdapterError, match=rf"^fc1: 1 of 2 {rule} scores are not finite"):
            scores(rule, weight, gradient, "fc1")
    with pytest.raises(AdapterError, match=r"^fc1: 1 of 2 magnitude"):
        scores("magnitude", broken, fine, "fc1")
    assert scores("magnitude", weight, broken, "fc1").tolist() == [1.0, 0.0], "no gradient is asked for"


def test_a_gradient_that_is_missing_or_would_be_broadcast_is_refused():
    for rule in ("gradient", "snip"):
        with pytest.raises(AdapterError, match=r"^fc1: no gradient reached it"):
            scores(rule, torch.ones(2, 2), None, "fc1")
        with pytest.raises(AdapterError, match=r"^fc1: a gradient of shape \(2, 1\) for a weight of \(2, 2\)"):
            scores(rule, torch.ones(2, 2), torch.ones(2, 1), "fc1")
    unknown: Any = "wanda"
    with pytest.raises(AdapterError, match="'wanda' has no scores; write magnitude, gradient, snip"):
        scores(unknown, torch.ones(2), torch.ones(2))


def test_a_weight_beyond_the_reach_of_an_index_is_refused_before_anything_is_drawn():
    with pytest.raises(AdapterError, match=r"^embedding: 2147483649 entries"):
        random_support(2**31 + 1, 3, 0, "embedding")
    with pytest.raises(AdapterError, match=r"^embedding: 2147483649 entries"):
        top_support(torch.zeros(1).expand(2**31 + 1), 3, name="embedding")
    assert int(random_support(2**31, 3, 0, "embedding")[-1]) < 2**31


def test_random_scores_are_what_they_always_were():
    drawn = random_scores(3, 7, "vision.3.linear1.weight")
    assert [score.hex() for score in drawn.tolist()] == [
        "0x1.9f3f7d14bfa87p-1",
        "0x1.e8d4b09101c98p-4",
        "0x1.f91109eb374e0p-5",
    ]
    assert drawn.dtype == torch.float64 and torch.equal(random_scores(2, 7, "vision.3.linear1.weight"), drawn[:2])
    many = random_scores(4000, 0, "w")
    assert float(many.min()) >= 0 and float(many.max()) < 1 and abs(float(many.mean()) - 0.5) < 0.02
