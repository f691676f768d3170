from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from kusabi.errors import DataError
from kusabi.evaluation.intervals import stretch
from kusabi.evaluation.learning_curve import learning_curve
from kusabi.evaluation.measured import Measured
from kusabi.evaluation.resampling import interval, resampled_recalls

SHOTS = (1, 2, 4, 8, 16)


def answers(random, errors, draws=5, pictures=300, spread=0.03):
    """Pictures have a difficulty that all draws share, draws a luck of their own."""
    hard = random.normal(size=pictures)
    luck = (
        spread * random.normal(size=(len(errors), draws)) * np.sqrt(SHOTS[0] / np.array(SHOTS[: len(errors)]))[:, None]
    )
    p = np.clip(np.array(errors)[:, None] + luck, 1e-3, 1 - 1e-3)
    u = norm.cdf(np.sqrt(0.5) * hard + np.sqrt(0.5) * random.normal(size=(len(errors), draws, pictures)))
    return u > p[:, :, None]


def measured(right, classes=3, shots=SHOTS):
    truth = np.arange(right.shape[2]) % classes
    return Measured(right, truth, [f"class {i}" for i in range(classes)], shots, [float(n) for n in shots])


FALLING = 0.05 + 0.45 * np.array(SHOTS) ** -0.6


def test_a_point_is_what_was_answered():
    right = answers(np.random.default_rng(0), FALLING)
    found = learning_curve(measured(right), more=50, worth=0.01)
    for step, point in enumerate(found["points"]):
        assert point["accuracy"] == pytest.approx(right[step].mean()) and point["shots"] == SHOTS[step]
        assert point["accuracies"] == pytest.approx(right[step].mean(axis=1).tolist())
        assert point["spread"] == pytest.approx(right[step].mean(axis=1).std(ddof=1))
        assert point["interval"][0] <= point["accuracy"] <= point["interval"][1]
        recalls = [right[step][:, label::3].mean() for label in range(3)]
        assert [one["recall"] for one in point["per_class"]] == pytest.approx(recalls)


def test_the_interval_of_an_accuracy_covers_it_about_as_often_as_it_says():
    hits, runs, truth = 0, 120, 0.2
    for seed in range(runs):
        right = answers(np.random.default_rng(seed), [truth], pictures=200)
        _, accuracies = resampled_recalls(right, np.zeros(200, dtype=np.int64), 1, seed=0, resamples=300)
        low, high = interval(accuracies[:, 0], right.mean())
        hits += low <= 1 - truth <= high
    assert 0.88 <= hits / runs <= 1.0


def test_few_draws_stretch_the_spread():
    assert stretch(1) == 0 and stretch(2) > stretch(5) > stretch(100) > 1


def test_the_law_expects_a_gain_and_is_checked_on_hidden_points():
    found = learning_curve(measured(answers(np.random.default_rng(1), FALLING, pictures=900)), more=50, worth=0.01)
    assert found["law"]["doubts"] == [] and [v["fitted_on"] for v in found["validation"]] == [[1, 2, 4, 8], [1, 2, 4]]
    assert found["validation"][0]["predictions"][0]["covered"]
    gains = {gain["more"]: gain for gain in found["gains"]}
    true = 0.45 * (16**-0.6 - 66**-0.6)
    assert set(gains) == {16, 50} and gains[50]["interval"][0] <= true <= gains[50]["interval"][1]
    assert gains[50]["gain"] > gains[16]["gain"] > 0


def test_stop_is_said_where_nothing_is_left_and_go_on_where_much_is():
    random = np.random.default_rng(2)
    steep = answers(random, 0.9 * np.array(SHOTS) ** -0.35, pictures=2000, draws=10, spread=0.005)
    assert learning_curve(measured(steep), more=5, worth=0.01)["stop"]["verdict"] == "go on"
    flat = answers(random, 0.1 + 0.4 * np.array(SHOTS) ** -1.9, pictures=4000, draws=10, spread=0.001)
    assert learning_curve(measured(flat), more=5, worth=0.03)["stop"]["verdict"] == "stop"


@pytest.mark.parametrize(("pictures", "verdict"), [(2, "open"), (90, "open"), (900, "stop")])
def test_where_all_is_right_labelling_stops_once_so_many_were_judged_that_little_can_be_wrong(pictures, verdict):
    stop = learning_curve(measured(np.ones((5, 3, pictures), dtype=bool), 2), more=5, worth=0.01)["stop"]
    assert (stop["verdict"], stop["basis"], stop["gain"]) == (verdict, "all right", 0)
    assert (stop["interval"][1] < 0.01) == (verdict == "stop")


def test_an_interval_of_few_pictures_covers_a_share_that_is_nearly_one():
    hits, random = 0, np.random.default_rng(7)
    for _ in range(60):
        right = np.repeat(random.random(10) < 0.967, 5).reshape(10, 5).T[None].repeat(2, 0)
        point = learning_curve(measured(right, shots=(1, 2)), more=5, worth=0.01)["points"][0]
        hits += point["interval"][0] <= 0.967 <= point["interval"][1]
    assert hits / 60 >= 0.93


def test_a_class_of_a_single_picture_is_the_least_sure_to_be_recognised():
    right = np.ones((2, 3, 201), dtype=bool)
    right[:, :, 1:4] = False
    truth = np.array([0] * 200 + [1])
    found = learning_curve(Measured(right, truth, ["many", "one"], (1, 2), (1, 2)), more=5, worth=0.01)
    assert found["weakest"]["class"] == "one" and found["weakest"]["interval"][0] < 0.3


def test_a_bend_that_no_law_foresees_makes_it_a_guess():
    bent = answers(np.random.default_rng(3), [0.6, 0.5, 0.42, 0.36, 0.05], pictures=2000, draws=10, spread=0.002)
    found = learning_curve(measured(bent), more=5, worth=0.01)
    assert "missed" in found["law"]["doubts"] and found["stop"]["basis"] == "last step"


def test_two_numbers_of_labels_make_no_law():
    found = learning_curve(measured(answers(np.random.default_rng(4), [0.5, 0.3]), shots=(1, 2)), more=5, worth=0.01)
    assert found["law"] is None and found["no_law"] == "few points" and found["gains"] == []


def test_a_rising_error_makes_no_law():
    rising = answers(np.random.default_rng(5), [0.1, 0.2, 0.3, 0.4, 0.5])
    assert learning_curve(measured(rising), more=5, worth=0.01)["no_law"] == "not falling"


def test_a_class_that_rose_clearly_is_short_of_labels():
    random = np.random.default_rng(6)
    right = random.random((3, 5, 600)) < 0.8
    right[-1, :, ::3] = random.random((5, 200)) < 0.98
    found = learning_curve(measured(right, shots=(1, 2, 4)), more=5, worth=0.01)
    assert [one["class"] for one in found["short_of_labels"]] == ["class 0"]
    assert found["weakest"]["class"] != "class 0"


def test_one_judged_picture_makes_no_class_short_of_labels_and_stops_nothing():
    right = np.zeros((2, 3, 5), dtype=bool)
    right[:, :, 1:] = True
    right[1, :, 0] = True
    names, shots = ["a", "b"], (1, 2)
    found = learning_curve(Measured(right, np.array([0, 1, 1, 1, 1]), names, shots, shots), more=1, worth=0.01)
    assert found["short_of_labels"] == [] and found["stop"]["verdict"] == "open"
    level = np.zeros((2, 3, 4), dtype=bool)
    found = learning_curve(Measured(level, np.arange(4) % 2, names, shots, shots), more=1, worth=0.01)
    assert found["stop"]["verdict"] == "open"


@pytest.mark.parametrize("shape", [(5, 1, 30), (4, 3, 30), (5, 3, 29)])
def test_shapes_that_do_not_belong_together_are_refused(shape):
    right = np.ones(shape, dtype=bool)
    with pytest.raises(DataError):
        learning_curve(Measured(right, np.zeros(30, dtype=np.int64), ["a"], SHOTS, SHOTS), more=5, worth=0.01)


def test_where_pictures_of_a_group_are_alike_whole_groups_are_resampled():
    right = np.repeat(answers(np.random.default_rng(1), FALLING, pictures=60), 15, axis=2)
    alone = measured(right)
    counted = learning_curve(replace(alone, groups=np.repeat(np.arange(60), 15)), more=50, worth=0.01)
    for one, other in zip(learning_curve(alone, more=50, worth=0.01)["points"], counted["points"], strict=True):
        low, high = one.pop("interval")
        assert other["accuracy"] == one["accuracy"] and np.diff(other["interval"]) > 1.1 * (high - low)
        for kind, same in zip(one["per_class"], other["per_class"], strict=True):
            assert np.diff(same["interval"]) > np.diff(kind["interval"])
    assert counted["short_of_labels"] == [] and counted["stop"]["verdict"] == "open"


def test_a_single_group_that_judges_promises_nothing():
    alone = measured(answers(np.random.default_rng(1), FALLING, pictures=900))
    found = learning_curve(replace(alone, groups=np.zeros(900, dtype=np.int64)), more=50, worth=0.01)
    assert (found["law"], found["no_law"], found["gains"]) == (None, "one group", [])
    assert found["stop"] == {
        "threshold": 0.01, "verdict": "open", "basis": "one group", "gain": None, "interval": None
    }  # fmt: skip
    assert {tuple(point["interval"]) for point in found["points"]} == {(0, 1)} and found["short_of_labels"] == []
