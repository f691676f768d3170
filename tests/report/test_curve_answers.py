import numpy as np
import pytest

from kusabi.evaluation.learning_curve import learning_curve
from kusabi.evaluation.measured import Measured
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


@pytest.mark.parametrize("language", ["en", "ja"])
def test_what_groups_were_counted_and_a_single_one_are_told(language):
    words, shots = read_words(language), (1, 2, 4, 8)
    right = np.random.default_rng(5).random((4, 5, 90)) < 0.7
    one_group = Measured(right, np.arange(90) % 3, ["a", "b", "c"], shots, shots, np.zeros(90, dtype=np.int64))
    of = learning_curve(one_group, more=5, worth=0.01)
    task = GROUPED | {"query_groups": 1, "intervals_by": "groups"}
    found = answers({"methods": {"adapted": of}, "asked": {"draws": 5}, "task": task}, words)
    assert found.stop == words("curve.stop_one_group") and words("curve.no_law_one_group") in found.others
    assert found.others[-1] == words("facts.by_group", groups="1")
