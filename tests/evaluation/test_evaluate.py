import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from kusabi.errors import DataError
from kusabi.evaluation.evaluate import evaluate


@st.composite
def answers(draw):
    classes, n = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.dirichlet(np.full(classes, 0.5), size=n)
    return scores, random.integers(0, classes, size=n), [f"class {i}" for i in range(classes)]


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@settings(max_examples=60, deadline=None)
@given(answers())
def test_the_numbers_agree_with_each_other(case):
    scores, labels, classes = case
    result = evaluate(scores, labels, classes)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(leaf is None or isinstance(leaf, str) or math.isfinite(leaf) for leaf in leaves(result))
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert [sum(row) for row in result["confusion"]] == np.bincount(labels, minlength=len(classes)).tolist()
    assert [one["n"] for one in result["per_class"]] == [sum(row) for row in result["confusion"]]
    assert sum(map(sum, result["confusion"])) == result["n"] == len(labels)
    assert 0 <= result["brier"] <= 2 and 0 <= result["ece"] <= 1


@settings(max_examples=40, deadline=None)
@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_pictures_does_not_matter(case, random):
    scores, labels, classes = case
    order = list(range(len(labels)))
    random.shuffle(order)
    one, other = evaluate(scores, labels, classes), evaluate(scores[order], labels[order], classes)
    assert one["confusion"] == other["confusion"]
    for key in ("accuracy", "macro_f1", "brier", "nll", "ece", "auroc"):
        assert one[key] == pytest.approx(other[key], abs=1e-12), key


@settings(max_examples=40, deadline=None)
@given(answers())
def test_scikit_learn_agrees_on_its_own_definitions(case):
    scores, labels, classes = case
    result, predicted = evaluate(scores, labels, classes), scores.argmax(axis=1)
    present = np.unique(labels)
    assert result["macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=present, average="macro"))
    recalls = [np.mean(predicted[labels == label] == label) for label in present]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if set(predicted) <= set(present) and len(present) > 1:
        assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert result["nll"] == pytest.approx(
        log_loss(labels, np.maximum(scores, 1e-12), labels=range(len(classes))), rel=1e-6
    )


def test_two_classes_take_the_second_as_the_positive():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8]])
    result = evaluate(scores, np.array([0, 1, 0, 1]), ["whole", "cracked"])
    assert result["accuracy"] == 0.75
    assert result["auroc"] == 0.75  # 3 of the 4 pairs of a cracked and a whole picture are in order
    assert result["recall_at_false_alarm"] == {"rate": 0.05, "recall": 0.5}
    assert result["brier"] == pytest.approx(2 * (0.01 + 0.36 + 0.45**2 + 0.04) / 4)
    assert result["per_class"][1] == {
        "class": "cracked", "n": 2, "recall": 0.5, "interval": pytest.approx([0.0945, 0.9055], abs=1e-4),
        "precision": 1.0, "f1": pytest.approx(2 / 3),
    }  # fmt: skip


def test_a_tie_goes_to_the_lower_index():
    assert evaluate([[0.5, 0.5]], [0], ["a", "b"])["accuracy"] == 1.0
    assert evaluate([[0.25, 0.375, 0.375]], [2], ["a", "b", "c"])["accuracy"] == 0.0


def test_a_class_without_pictures_is_none_and_left_out_of_means():
    result = evaluate([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], [0, 1], ["a", "b", "c"])
    assert result["per_class"][2] == {
        "class": "c", "n": 0, "recall": None, "interval": None, "precision": None, "f1": None,
    }  # fmt: skip
    assert result["balanced_accuracy"] == result["macro_f1"] == result["auroc"] == 1.0


def test_pictures_of_one_class_only_have_no_auroc():
    result = evaluate([[0.8, 0.2], [0.4, 0.6]], [0, 0], ["a", "b"])
    assert result["auroc"] is None and result["recall_at_false_alarm"]["recall"] is None


def test_one_certain_error_leaves_the_loss_finite():
    assert evaluate([[1.0, 0.0]], [1], ["a", "b"])["nll"] == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([[0.5, 0.5]], [2], "label 2 at position 0"),
        ([[0.5, 0.5]], [-1], "label -1"),
        ([[0.5, 0.5]], [0.0], "whole numbers"),
        ([[0.5, 0.5], [math.nan, 0.5]], [0, 1], "row 1"),
        ([[0.7, 0.7]], [0], "sum to 1"),
        ([[1.5, -0.5]], [0], "not negative"),
        ([[0.2, 0.3, 0.5]], [0], "shape (1, 3)"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_place(scores, labels, said):
    with pytest.raises(DataError) as error:
        evaluate(scores, labels, ["a", "b"])
    assert said in str(error.value)
