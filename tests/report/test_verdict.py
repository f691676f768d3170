import copy

import pytest

from kusabi.evaluation.pool import pool
from kusabi.report.verdict import outcome, verdict
from kusabi.report.words import read_words

INTERVALS = {"better": [0.01, 0.2], "unclear": [-0.05, 0.06], "worse": [-0.2, -0.01]}
WORDS = {language: read_words(language) for language in ("en", "ja")}
SAID = {
    "better": ("The adapter is better than the untouched model", "元のモデルを上回りました"),
    "unclear": ("There is no clear difference between", "明確な差は認められませんでした"),
    "worse": ("The adapter is worse than the untouched model", "元のモデルを下回りました"),
}
ABOUT_PEER = {
    "better": ("It is better than the best simple method", "アダプターが上回りました"),
    "unclear": ("there is no clear difference", "明確な差は認められませんでした"),
    "worse": ("The best simple method wins: the adapter is worse than", "最良の簡易手法のほうが優れています"),
}


@pytest.fixture(scope="module")
def single(evaluation_of):
    return evaluation_of()


def standing(evaluation, zero_shot, class_mean, linear_probe, best="linear_probe"):
    changed = copy.deepcopy(evaluation)
    changed["difference"]["interval"] = INTERVALS[zero_shot]
    changed["against_peers"]["class_mean"]["interval"] = INTERVALS[class_mean]
    changed["against_peers"]["linear_probe"]["interval"] = INTERVALS[linear_probe]
    changed["best_peer"] = best
    return changed


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("against_zero_shot", INTERVALS)
@pytest.mark.parametrize("against_peer", INTERVALS)
def test_every_standing_is_said_as_it_is(single, language, against_zero_shot, against_peer):
    evaluation = standing(single, against_zero_shot, "better", against_peer)
    said = verdict(evaluation, WORDS[language])
    assert SAID[against_zero_shot][language == "ja"] in said.sentence
    assert ABOUT_PEER[against_peer][language == "ja"] in said.peers[0]
    assert WORDS[language]("way_inside.linear_probe") in said.peers[0]
    assert [mark.outcome for mark in said.marks] == [against_zero_shot, against_peer]
    if against_peer == "worse" and against_zero_shot != "worse":
        assert WORDS[language]("way_inside.linear_probe") in said.advice
    assert len(said.peers) == 1


@pytest.mark.parametrize(
    ("zero_shot", "peer", "advised"),
    [
        ("better", "better", "The adapter. Neither"),
        ("better", "unclear", "The cheaper choice is the linear probe"),
        ("better", "worse", "The better and cheaper choice is the linear probe"),
        ("unclear", "better", "The cheapest choice is the untouched model"),
        ("unclear", "unclear", "The cheapest choice is the untouched model"),
        ("unclear", "worse", "The better and cheaper choice is the linear probe"),
        ("worse", "better", "The untouched model. This adapter makes it worse"),
        ("worse", "unclear", "The untouched model. This adapter makes it worse"),
        ("worse", "worse", "Not this adapter"),
    ],
)
def test_the_cheaper_choice_is_named(single, zero_shot, peer, advised):
    assert verdict(standing(single, zero_shot, "better", peer), WORDS["en"]).advice.startswith(advised)


def test_when_both_are_better_the_more_accurate_one_is_named(single):
    evaluation = standing(single, "worse", "better", "worse")
    evaluation["zero_shot"]["accuracy"], evaluation["linear_probe"]["accuracy"] = 0.8, 0.7
    assert verdict(evaluation, WORDS["en"]).advice.endswith("The more accurate of the two here is the untouched model.")
    evaluation["linear_probe"]["accuracy"] = 0.9
    assert verdict(evaluation, WORDS["en"]).advice.endswith("The more accurate of the two here is the linear probe.")


def test_the_other_peer_is_not_hidden_behind_the_best_one(single):
    said = verdict(standing(single, "better", "unclear", "better"), WORDS["en"])
    assert "the other simple method, the nearest class mean, there is no clear difference" in said.peers[1]
    assert said.advice.startswith("The cheaper choice is the nearest class mean")
    assert said.marks[1].way == "class_mean" and said.worst == "unclear"


def test_a_winning_peer_colours_the_whole(single):
    assert verdict(standing(single, "better", "better", "worse"), WORDS["en"]).worst == "worse"
    assert verdict(standing(single, "better", "better", "better"), WORDS["en"]).worst == "better"


def test_an_adapter_that_loses_on_real_answers_is_called_losing(evaluation_of):
    evaluation = evaluation_of(strengths={"zero_shot": 3.0, "linear_probe": 3.5, "adapted": 0.5})
    said = verdict(evaluation, WORDS["en"])
    assert said.sentence.startswith("The adapter is worse than the untouched model: −")
    assert said.peers[0].startswith("The best simple method wins")
    assert "n\u00a0=\u00a0240 pictures, 1 seed" in said.sentence


def test_equal_answers_are_no_clear_difference_and_say_what_could_be_seen(evaluation_of):
    said = verdict(evaluation_of(strengths={"zero_shot": 2.0, "adapted": 2.0}), WORDS["en"])
    assert said.marks[0].outcome == "unclear" and ": 0.0 points" in said.sentence
    assert said.remarks[0].startswith("A test of this size finds a true difference of about")


def test_one_seed_is_admitted_and_several_show_their_spread(evaluation_of, single):
    assert verdict(single, WORDS["en"]).remarks == (WORDS["en"]("verdict.one_seed"),)
    pooled = pool([evaluation_of(seed=seed) for seed in range(3)])
    (remark,) = verdict(pooled, WORDS["en"]).remarks
    assert all(f"{one * 100:.1f}\u00a0%" in remark for one in pooled["adapted"]["accuracies"])
    assert f"a spread of {pooled['adapted']['spread'] * 100:.1f} points" in remark


def test_cross_validation_is_said(evaluation_of):
    said = verdict(evaluation_of(held_out="cross-validation, 5 folds"), WORDS["ja"])
    assert "交差検証" in said.remarks[-1]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_intervals_that_know_of_no_groups_are_said_to_be_too_narrow_where_groups_were_given(evaluation_of, language):
    words = read_words(language)
    said = {n: verdict(evaluation_of(query_groups=n), words).remarks for n in (None, 6, 240)}
    assert words("facts.grouped") in said[6] and said[None] == said[240] == said[6][:-1]
    counted = verdict(evaluation_of(query_groups=6, intervals_by="groups"), words).remarks
    assert counted == (*said[None], words("facts.by_group", groups="6"))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([1e-17, 0.1], "unclear"), ([-0.1, -1e-17], "unclear"), ([0.0, 0.1], "unclear"), ([0.001, 0.1], "better")],
)
def test_a_hair_of_rounding_is_not_a_difference(interval, expected):
    assert outcome({"interval": interval}) == expected
