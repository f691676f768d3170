import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.errors import DataError
from kusabi.evaluation.comparison import compare


@st.composite
def sides(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.random(shape) < 0.7, random.random(shape) < 0.5


@settings(max_examples=50, deadline=None)
@given(sides())
def test_swapping_the_sides_is_the_exact_mirror_image(case):
    new, old = case
    there, back = compare(new, old, draws=200), compare(old, new, draws=200)
    assert back["value"] == -there["value"]
    assert back["interval"] == [-there["interval"][1], -there["interval"][0]]
    assert (back["gained"], back["lost"]) == (there["lost"], there["gained"])
    assert back["mcnemar_p"] == there["mcnemar_p"]
    assert back["minimum_detectable_effect"] == there["minimum_detectable_effect"]


@settings(max_examples=25, deadline=None)
@given(sides())
def test_a_way_does_not_differ_from_itself(case):
    result = compare(case[0], case[0], draws=100)
    low, high = result["interval"]
    assert result["value"] == 0 and low == -high < 0 and result["mcnemar_p"] == 1


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_pictures():
    # 9 gained, 1 lost: twice the chance of 0 or 1 heads in 10 throws = 2 * (1 + 10) / 1024.
    new, old = np.zeros(40, bool), np.zeros(40, bool)
    new[:9], old[9], new[20:], old[20:] = True, True, True, True
    result = compare(new, old)
    assert result["mcnemar_p"] == pytest.approx(22 / 1024)
    assert (result["gained"], result["lost"], result["n"], result["seeds"]) == (9, 1, 40, 1)
    assert result["value"] == pytest.approx(8 / 40)
    assert result["interval"][0] > 0
    assert result["minimum_detectable_effect"] == pytest.approx(2.801585 * np.sqrt(0.25 / 40), rel=1e-5)


def test_one_seed_agrees_with_resampling_pictures_one_by_one():
    random = np.random.default_rng(3)
    new, old = random.random(60) < 0.8, random.random(60) < 0.6
    drawn = random.integers(0, 60, size=(20_000, 60))
    values = (new[drawn].astype(float) - old[drawn]).mean(axis=1)
    assert compare(new, old, draws=20_000)["interval"] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.018)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        kinds = random.choice(3, size=150, p=[0.2, 0.1, 0.7])  # gained, lost, same: the true difference is 0.1
        low, high = compare(kinds == 0, kinds == 1, draws=400, seed=trial)["interval"]
        hits += low <= 0.1 <= high
    assert 0.9 <= hits / 200 <= 0.99


def one_way(gained, lost, n):
    kinds = np.arange(n)
    return kinds < gained, (kinds >= gained) & (kinds < gained + lost)


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 0, 1), (3, 0, 5), (4, 0, 99), (5, 0, 5), (7, 1, 99), (0, 0, 9)])
def test_few_disputed_pictures_are_no_clear_difference(gained, lost, n):
    result = compare(*one_way(gained, lost, n))
    low, high = result["interval"]
    assert result["mcnemar_p"] > 0.05 and low < 0 <= result["value"] <= high and low < high
    seeds = compare(*(np.stack([side] * 3) for side in one_way(gained, lost, n)))
    assert seeds["interval"][0] < 0


def test_few_disputed_pictures_that_the_exact_test_tells_apart_are_a_clear_difference():
    assert compare(*one_way(6, 0, 100))["interval"][0] > 0 > compare(*one_way(1, 9, 40))["interval"][1]


@pytest.mark.parametrize(("gained", "lost"), [(5, 5), (14, 6), (20, 0), (1, 40)])
def test_with_enough_disputed_pictures_the_interval_is_that_of_the_resampling_alone(gained, lost):
    random, n = np.random.default_rng(0), 200
    drawn = random.multinomial(n, np.array([gained, lost, n - gained - lost]) / n, size=2000)
    values = np.sort((drawn[:, 0] - drawn[:, 1]) / n)
    assert compare(*one_way(gained, lost, n))["interval"] == [values[50], values[1949]]


def test_where_little_is_disputed_the_interval_still_covers_the_truth_as_often_as_it_says():
    hits = 0
    for trial in range(300):
        random = np.random.default_rng(trial)
        kinds = random.choice(3, size=100, p=[0.035, 0.0, 0.965])
        low, high = compare(kinds == 0, kinds == 1, draws=200)["interval"]
        hits += low <= 0.035 <= high
    assert hits / 300 >= 0.94


def test_seeds_that_disagree_widen_the_interval():
    old = np.zeros((3, 100), bool)
    agreeing, disagreeing = old.copy(), old.copy()
    agreeing[:, :30] = True
    for seed, right in enumerate((0, 30, 60)):
        disagreeing[seed, :right] = True
    narrow, wide = compare(agreeing, old), compare(disagreeing, old)
    assert narrow["value"] == pytest.approx(wide["value"])
    assert np.ptp(wide["interval"]) > 1.5 * np.ptp(narrow["interval"])
    assert wide["mcnemar_basis"] == "majority of the seeds" and wide["gained"] == 30


def test_two_seeds_that_differ_much_say_little_of_a_third():
    old, new = np.zeros((2, 600), bool), np.zeros((2, 600), bool)
    new[0, :60], new[1, :20] = True, True
    low, high = compare(new, old)["interval"]
    assert low < 0 < compare(new[1], old[1])["interval"][0] and high < 1
    assert compare(new[[0, 0]], old)["interval"] == pytest.approx(compare(new[0], old[0])["interval"])


def test_seeds_that_are_no_better_on_average_are_seldom_called_better():
    called, trials = 0, 150
    for trial in range(trials):
        random = np.random.default_rng(trial)
        shift = random.normal(0, 0.04, size=3)[:, None]
        drawn = random.random((3, 1000))
        low, high = compare(drawn < 0.15 + shift / 2, drawn > 0.85 + shift / 2, draws=200)["interval"]
        called += low > 0 or high < 0
    assert called / trials < 0.08


def test_the_same_arguments_give_the_same_answer():
    random = np.random.default_rng(0)
    new, old = random.random((3, 50)) < 0.8, random.random((3, 50)) < 0.6
    assert compare(new, old) == compare(new, old)
    assert any(compare(new, old, seed=s)["interval"] != compare(new, old)["interval"] for s in range(1, 6))


def test_pictures_that_a_seed_did_not_judge_do_not_count_for_it():
    new, old = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], bool), np.zeros((2, 4), bool)
    judged = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    result = compare(new, old, judged=judged)
    assert result["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result["n"] == 3  # the last picture was judged by nobody


def test_no_dispute_still_leaves_a_smallest_effect():
    assert compare(np.ones(100, bool), np.ones(100, bool))["minimum_detectable_effect"] == pytest.approx(
        0.028016, rel=1e-4
    )
    assert compare([True], [True])["minimum_detectable_effect"] == 1.0


@pytest.mark.parametrize("shapes", list(itertools.permutations([(1, 3), (1, 4)])))
def test_different_pictures_are_refused(shapes):
    with pytest.raises(DataError, match="same pictures"):
        compare(np.ones(shapes[0]), np.ones(shapes[1]))


def test_nothing_judged_is_refused():
    with pytest.raises(DataError, match="at least one"):
        compare(np.ones((2, 3)), np.ones((2, 3)), judged=[[1, 1, 1], [0, 0, 0]])
