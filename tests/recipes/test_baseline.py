import numpy as np
import pytest

from kusabi.evaluation.evaluate import evaluate
from kusabi.recipes.baseline import recommend

CLASSES = ["a", "b", "c", "d"]


def measured(share, n=400):
    labels = np.arange(n) % 4
    wrong = np.arange(n) >= round(share * n)
    scores = np.eye(4)[np.where(wrong, (labels + 1) % 4, labels)]
    return evaluate(scores, labels, CLASSES)


def found(zero, mean, probe):
    ways = {"zero_shot": measured(zero), "class_mean": measured(mean), "linear_probe": measured(probe)}
    return ways | {"best_peer": max(("class_mean", "linear_probe"), key=lambda way: ways[way]["accuracy"])}


@pytest.mark.parametrize(
    ("ways", "poorest", "action"),
    [
        ((0.99, 0.9, 0.9), 16, "zero-shot suffices"),
        ((0.5, 0.8, 0.7), 16, "adapt"),
        ((0.8, 0.5, 0.6), 16, "adapt"),
        ((0.5, 0.8, 0.7), 2, "label more"),
        ((0.25, 0.26, 0.24), 16, "choose another model"),
    ],
)
def test_the_advice_follows_the_numbers(ways, poorest, action):
    advice = recommend(found(*ways), ("d", poorest), 4)
    assert advice["action"] == action


def test_the_reason_names_the_figures():
    advice = recommend(found(0.5, 0.8, 0.7), ("d", 16), 4)
    assert "50.0%" in advice["reason"] and "80.0%" in advice["reason"] and "class mean" in advice["reason"]


def test_the_poorest_class_is_named():
    assert "'d' has 2" in recommend(found(0.5, 0.8, 0.7), ("d", 2), 4)["reason"]
