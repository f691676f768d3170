import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.evaluation.candidates import Candidate, choose
from kusabi.evaluation.clusters import among, effective, numbered, share_interval, summed
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import evaluate
from kusabi.evaluation.intervals import wilson
from kusabi.evaluation.placement import against_default


def width(interval):
    return interval[1] - interval[0]


def test_groups_are_numbered_only_where_pictures_share_one():
    assert numbered(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert numbered(["a", "b"]) is None and numbered([]) is None
    assert among(numbered(["a", "a", "b", "b"]), np.array([True, False, True, False])) is None
    assert summed(np.array([[1, 2, 4], [0, 1, 0]]), np.array([0, 1, 0])).tolist() == [[5, 2], [0, 1]]
    assert effective(np.array([0, 0, 1, 1])) == 2 and effective(np.array([0] * 9 + [1])) < 1.3


def test_copies_of_a_picture_are_no_further_evidence():
    right = np.arange(40) % 4 > 0
    low, high = share_interval(30, right, None)
    copied, groups = np.repeat(right, 10), np.repeat(np.arange(40), 10)
    assert width(share_interval(300, copied, None)) < 0.5 * (high - low)
    assert share_interval(300, copied, groups) == pytest.approx([low, high], abs=0.02)
    new, old = np.arange(40) < 30, np.arange(40) >= 20
    alone = compare(new, old)
    together = compare(np.repeat(new, 10), np.repeat(old, 10), groups=groups)
    assert width(compare(np.repeat(new, 10), np.repeat(old, 10))["interval"]) < 0.5 * width(alone["interval"])
    assert together["interval"] == pytest.approx(alone["interval"], abs=0.04)
    assert together["mcnemar_p"] == pytest.approx(alone["mcnemar_p"], abs=0.02)
    assert together["minimum_detectable_effect"] == pytest.approx(alone["minimum_detectable_effect"], rel=0.05)
    assert (together["value"], together["n"]) == (pytest.approx(alone["value"]), 400)


def test_a_single_group_says_nothing_of_others():
    right, groups = np.ones(50, bool), np.zeros(50, dtype=np.int64)
    assert share_interval(50, right, groups) == [0, 1]
    found = compare(right, ~right, groups=groups)
    assert found["interval"] == [-1, 1] and found["mcnemar_p"] == 1 and found["minimum_detectable_effect"] == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(2, 9))
def test_the_mirror_image_holds_with_groups_and_groups_of_one_picture_are_none(seed, seeds, count):
    random = np.random.default_rng(seed)
    new, old = random.random((2, seeds, 30)) < 0.6
    groups = random.integers(0, count, 30)
    there, back = (compare(*sides, groups=numbered(groups.tolist()), draws=200) for sides in ((new, old), (old, new)))
    assert back["interval"] == pytest.approx([-there["interval"][1], -there["interval"][0]], abs=1e-12)
    assert back["mcnemar_p"] == there["mcnemar_p"] and there["interval"][0] <= there["value"] <= there["interval"][1]
    apart = np.arange(30)
    assert compare(new, old, groups=numbered(apart.tolist()), draws=200) == compare(new, old, draws=200)


@pytest.mark.parametrize(
    ("balances", "expected"),
    [([3, 2, 1], 2 / 8), ([3, -1], 1.0), ([5] * 6, 2 / 64), ([2] * 20, 1e-4)],  # of many groups a draw of all turns
)
def test_the_test_turns_whole_groups(balances, expected):
    groups = np.repeat(np.arange(len(balances)), np.abs(balances))
    new = np.repeat(np.array(balances) > 0, np.abs(balances))
    found = compare(new, ~new, groups=numbered(groups.tolist()))
    assert found["mcnemar_p"] == pytest.approx(expected, abs=1e-6) and found["mcnemar_basis"] == "groups, one run"
    assert (found["gained"], found["lost"]) == (int(new.sum()), int((~new).sum()))


@pytest.mark.parametrize(("gain", "loss"), [(0.25, 0.15), (0.05, 0.02)])
def test_intervals_cover_the_truth_where_pictures_of_a_group_are_alike_and_plain_ones_do_not(gain, loss):
    random, groups, hits = np.random.default_rng(0), np.repeat(np.arange(8), 12), np.zeros((2, 2))
    for _ in range(200):
        gains, losses = (random.beta(3 * share, 3 * (1 - share), 8)[groups] for share in (gain, loss))
        new = random.random(96) < gains
        old = ~new & (random.random(96) < losses)
        truth = gain - (1 - gain) * loss
        for row, of in enumerate((groups, None)):
            low, high = compare(new, old, groups=of, draws=200)["interval"]
            hits[row, 0] += low <= truth <= high
            low, high = share_interval(new.sum(), new, of)
            hits[row, 1] += low <= gain <= high
    assert (hits[0] >= 0.92 * 200).all() and (hits[1] < 0.85 * 200).all()


def test_every_figure_of_an_evaluation_stays_and_its_intervals_widen():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    groups = np.repeat(np.arange(12), 10)
    right = random.random(12)[groups] < 0.7
    scores = np.where((labels == right)[:, None], [0.1, 0.9], [0.9, 0.1])
    plain, counted = evaluate(scores, labels, ["a", "b"]), evaluate(scores, labels, ["a", "b"], groups)
    assert width(counted["interval"]) > 1.5 * width(plain["interval"])
    for one, other in zip(plain["per_class"], counted["per_class"], strict=True):
        assert width(other.pop("interval")) > width(one.pop("interval"))
    assert {key: value for key, value in counted.items() if key != "interval"} == {
        key: value for key, value in plain.items() if key != "interval"
    }


def test_models_and_placements_are_told_apart_by_groups():
    groups, right = np.repeat(np.arange(4), 25), np.ones(100, bool)
    behind = np.arange(100) >= 25  # wrong about one group alone
    rows = [Candidate(name, side, 1, (1.0, 1.0), True) for name, side in (("a", right), ("b", behind))]
    assert choose(rows)["level"] == [] and choose(rows, groups)["level"] == ["b"]
    lines = [[{"seed": 0, "right": "".join("01"[int(hit)] for hit in side)}] for side in (behind, right)]
    files = {0: [str(i) for i in range(100)]}
    plain = against_default(*lines, files)
    counted = against_default(*lines, files, {str(i): int(groups[i]) for i in range(100)})
    assert plain["interval"][1] < 0 < counted["interval"][1] and counted["value"] == plain["value"]


def test_a_share_of_nothing_and_of_all_is_worth_its_groups():
    groups = np.repeat(np.arange(10), 10)
    low, high = share_interval(100, np.ones(100, bool), groups)
    assert high == 1 and low < wilson(10, 10)[0] < wilson(100, 100)[0]
