import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.support import allocate, random_support, top_support


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
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = random_support(4096, 64, 0, "a")
    torch.rand(3)
    assert torch.equal(first, random_support(4096, 64, 0, "a"))
    assert not torch.equal(first, random_support(4096, 64, 1, "a"))
    assert not torch.equal(first, random_support(4096, 64, 0, "b"))
    torch.set_rng_state(before[0])
    random_support(4096, 64, 0, "a")
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("k", [3, 9])  # drawn until complete; random keys sorted
def test_every_position_is_drawn_about_equally_often(k):
    counts = torch.zeros(12)
    for seed in range(1500):
        counts[random_support(12, k, seed, "w").long()] += 1
    expected = 1500 * k / 12
    assert float(((counts - expected) ** 2 / expected).sum()) < 31.3  # chi-squared, 11 degrees, p = 0.001


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_the_top_support_takes_the_largest_and_of_equals_the_first(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    wanted = sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k])
    for dtype in (torch.float32, torch.bfloat16):
        support = top_support(torch.tensor(scores, dtype=dtype), k)
        assert support.tolist() == wanted and support.dtype == torch.int32


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
