import numpy as np
import pytest

from kusabi.evaluation.learning_curve import Measured, learning_curve
from kusabi.report.curve_answers import answers
from kusabi.report.words import read_words

GROUPED = {"query_groups": 4, "query_pictures": 90}


@pytest.mark.parametrize(
    ("language", "open_said", "said", "never"),
    [
        ("en", "Open whether to go on", "do not show", "not expected to help"),
        ("ja", "はっきり", "分かりません", "効果は見込め"),
    ],
)
def test_an_error_that_was_not_seen_to_fall_is_no_promise_that_more_pictures_are_idle(language, open_said, said, never):
    shots, random = (1, 2, 4, 8), np.random.default_rng(5)
    right = random.random((4, 5, 90)) < np.array([0.9, 0.8, 0.7, 0.6])[:, None, None]
    of = learning_curve(Measured(right, np.arange(90) % 3, ["a", "b", "c"], shots, shots), more=5, worth=0.01)
    found = answers({"methods": {"adapted": of}, "asked": {"draws": 5}, "task": {}}, read_words(language))
    grouped = answers({"methods": {"adapted": of}, "asked": {"draws": 5}, "task": GROUPED}, read_words(language))
    assert grouped.others == (*found.others, read_words(language)("facts.grouped"))
    assert of["no_law"] == "not falling" and open_said in found.stop
    assert any(said in sentence for sentence in found.others) and not any(never in one for one in found.others)
