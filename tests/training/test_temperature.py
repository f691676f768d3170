"""Sureness: what so many pictures allow, and never more than was there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from kusabi.training.temperature import LEAST, sureness


@given(st.integers(2, 40), st.integers(2, 6), st.floats(20, 300))
def test_logits_that_are_all_right_end_at_laplaces_rule(pictures: int, classes: int, margin: float):
    labels = np.arange(pictures) % classes
    logits = margin * np.eye(classes)[labels]
    chances = softmax(sureness(logits, labels, pictures) * logits, axis=1)
    assert chances[0, 0] == pytest.approx((pictures + 1) / (pictures + 2), rel=1e-6)


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_never_surer_than_it_was(seed: int, scale: float):
    chance = np.random.default_rng(seed)
    logits, labels = scale * chance.normal(size=(12, 3)), chance.integers(0, 3, 12)
    assert LEAST <= sureness(logits, labels, 12) <= 1


def test_more_pictures_allow_more_and_views_are_no_pictures():
    labels = np.array([0, 1])
    logits = 50 * np.eye(2)
    few = sureness(logits, labels, 2)
    assert sureness(np.tile(logits, (8, 1)), np.tile(labels, 8), 2) == pytest.approx(few)
    assert sureness(np.tile(logits, (8, 1)), np.tile(labels, 8), 16) > few


def test_modest_logits_stay_as_they_are():
    assert sureness(np.array([[0.1, 0.0], [0.0, 0.1]]), np.array([0, 1]), 2) == 1


def test_logits_that_are_wrong_say_nothing_in_the_end():
    assert sureness(np.array([[0.0, 9.0], [9.0, 0.0]]), np.array([0, 1]), 2) == LEAST
