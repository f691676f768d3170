import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.evaluation.candidates import Candidate, choose
from kusabi.evaluation.comparison import compare

N = 200


def model(name, hits, parameters=100, speeds=(10.0, 11.0), above_chance=True, first=0):
    """A model that is right about ``hits`` pictures, from ``first`` on."""
    place = (np.arange(N) - first) % N
    return Candidate(name, place < hits, parameters, speeds, above_chance)


def test_the_most_accurate_is_best_and_what_is_clearly_behind_is_not_level():
    found = choose([model("a", 100), model("b", 180), model("c", 60)])
    assert (found["action"], found["best"], found["level"], found["smallest"]) == ("take", "b", [], "b")
    assert found["against"]["a"]["value"] == 0.4 and list(found["against"]) == ["a", "c"]


def test_a_smaller_one_is_named_where_the_paired_interval_includes_zero():
    found = choose([model("big", 180, 1000), model("small", 179, 10, first=20), model("tiny", 90, 1)])
    assert found["best"] == "big" and found["level"] == ["small"] and found["smallest"] == "small"


def test_pairing_tells_apart_what_equal_accuracies_could_not():
    always = choose([model("a", 100), model("b", 94)])  # b is wrong wherever a is, and on six more
    apart = choose([model("a", 100), model("b", 94, first=100)])
    assert always["level"] == [] and apart["level"] == ["b"]


def test_faster_is_only_said_where_timings_do_not_overlap():
    best = model("best", 180, speeds=(10.0, 20.0))
    level = [model("overlapping", 179, speeds=(19.0, 40.0)), model("clear", 178, speeds=(21.0, 40.0))]
    behind = model("behind", 50, speeds=(900.0, 901.0))
    found = choose([best, *level, behind])
    assert set(found["level"]) >= {"overlapping"} and found["faster"] == [n for n in found["level"] if n == "clear"]


def test_of_equal_accuracies_the_smaller_is_best():
    assert choose([model("a", 150, 7), model("b", 150, 5)])["best"] == "b"


def test_a_best_that_is_not_above_guessing_is_not_taken():
    assert choose([model("a", 70, above_chance=False), model("b", 60, above_chance=False)])["action"] == "none"


def test_one_alone_is_best():
    found = choose([model("a", 100)])
    assert (found["best"], found["against"], found["level"], found["smallest"]) == ("a", {}, [], "a")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, N), st.integers(1, 3), st.integers(0, N)), min_size=2, max_size=3))
def test_order_changes_nothing_and_level_is_what_the_paired_interval_says(drawn):
    models = [model(f"m{i}", hits, size, first=first) for i, (hits, size, first) in enumerate(drawn)]
    found = [choose(order) for order in itertools.permutations(models)]
    assert all(one == found[0] for one in found)
    of = {one.name: one for one in models}
    best = of[found[0]["best"]]
    assert best.right.mean() == max(one.right.mean() for one in models)
    level = {n for n, one in of.items() if n != best.name and compare(best.right, one.right)["interval"][0] <= 0}
    assert set(found[0]["level"]) == level
    assert of[found[0]["smallest"]].parameters == min(of[n].parameters for n in {best.name, *level})
