from html import unescape

import pytest

from kusabi.report.ablation_page import advice, heat, reading, render_ablation, trials
from kusabi.report.words import read_words


def difference(value, low, high):
    return {"value": value, "interval": [low, high]}


def place(name, value, low, high):
    return {
        "placement": name, "accuracy": 0.8 + value, "support_loss": 0.5, "seconds": 2.0, "entries": 300,
        "difference": difference(value, low, high),
    }  # fmt: skip


FOUND = {
    "schema": 1,
    "task": {"name": "parts", "seeds": [0, 1]},
    "budget": 300,
    "default": "vision:1:*",
    "recommendation": {
        "placement": "vision:0:*", "action": "move", "difference": difference(0.05, 0.01, 0.09), "seconds": 3.0,
        "default_seconds": 2.0, "entries": 300,
    },
    "trials": [
        {"family": "in", "tower": "vision", "label": "0", "placement": "vision:0:*"},
        {"family": "out", "tower": "vision", "label": "1", "placement": "vision:0:*"},
    ],
    "placements": {
        "vision:1:*": place("vision:1:*", 0.0, 0.0, 0.0), "vision:0:*": place("vision:0:*", 0.05, 0.01, 0.09)
    },
    "auto": place("auto", 0.05, 0.01, 0.09),
    "predictor": {
        "weights": [
            {"tower": "vision", "layer": layer, "projection": name, "size": 10, "energy": energy}
            for layer, name, energy in ((0, "q.weight", 0.5), (0, "k.weight", 0.1), (1, "q.weight", 0.25))
        ] + [{"tower": "text", "layer": 0, "projection": "q.weight", "size": 10, "energy": 0.15}],
        "correlation": {
            "all": {"n": 4, "accuracy": 0.5, "log_loss": 0.5}, "vision": {"n": 4, "accuracy": -0.25, "log_loss": 0.1},
            "text": {"n": 1, "accuracy": None, "log_loss": None},
        },
    },
    "backbone": {"source": "mini", "digest": "ab"},
    "environment": {"kusabi": "0.1.0"},
    "command": "kusabi ablate parts",
}  # fmt: skip


def test_the_map_stands_as_the_model_does_with_its_strongest_weight_full():
    vision, text = heat(FOUND)
    assert [row["layer"] for row in vision["layers"]] == [1, 0] and vision["projections"] == ["q", "k"]
    assert vision["layers"][1]["cells"][0] == {"share": 0.5, "strength": 1.0}
    assert vision["layers"][0]["cells"] == [{"share": 0.25, "strength": 0.5}, None]
    assert vision["layers"][1]["alone"] == difference(0.05, 0.01, 0.09) and vision["layers"][1]["without"] is None
    assert vision["layers"][0]["without"] == difference(0.05, 0.01, 0.09)
    assert text["tower"] == "text" and text["layers"][0]["alone"] is None


def test_the_rows_are_the_default_the_predictor_and_every_trial():
    assert [row["family"] for row in trials(FOUND)] == ["default", "auto", "in", "out"]


def test_the_advice_names_the_placement_what_it_bought_and_what_the_predictor_is_worth():
    said = advice(FOUND, read_words("en"))
    assert "vision:0:*" in said[0] and said[0].startswith("Move") and "+5.0" in said[1] and "1.0 to 9.0" in said[1]
    assert "3.0\u00a0s" in said[2] and "−0.25" in said[3] and len(said) == 4


def test_the_page_is_whole_in_both_languages():
    for language in ("en", "ja"):
        page = render_ablation(FOUND, language)
        assert "rgb(var(--right) / 0.6)" in page and "kusabi ablate parts" in page and "{{" not in page


def without_test_split(**advice):
    task = {"name": "parts", "seeds": [0, 1], "held_out": "cross-validation, 4 folds"}
    return FOUND | {"task": task, "cross_validated": True, "recommendation": FOUND["recommendation"] | advice}


@pytest.mark.parametrize(
    ("language", "said", "never"),
    [
        ("en", "1 of 8 answers", ("had no say", "chooses nothing")),
        ("ja", "8件の回答のうち1件", ("使っていない", "使いません")),
    ],
)
def test_a_choice_made_anew_for_every_part_says_so(language, said, never):
    found, words = without_test_split(chosen_anew={"vision:1:*": 7, "vision:0:*": 1}), read_words(language)
    bought, notes = advice(found, words)[1], reading(found, words)["table"]
    assert said in bought and "+5.0" in bought
    assert notes[1:] == [words("ablation.same_pictures"), words("ablation.auto_saw")]
    assert not any(text in bought or text in " ".join(notes) for text in never)


def test_a_file_of_an_older_version_without_a_test_split_is_called_flattering():
    words = read_words("en")
    assert advice(without_test_split(), words)[1].startswith("On the same pictures that chose it: +5.0")
    assert reading(without_test_split(), words)["table"][1] == words("ablation.same_pictures")


@pytest.mark.parametrize(("language", "said"), [("en", "fewest layers"), ("ja", "層の最も少ない")])
def test_the_rule_that_recommends_is_told_as_it_is(language, said):
    assert said in reading(FOUND, read_words(language))["table"][0]


def test_intervals_that_know_of_no_groups_are_said_to_be_too_narrow():
    grouped = FOUND | {"task": FOUND["task"] | {"query_groups": 4, "query_pictures": 90}}
    words = read_words("en")
    assert reading(grouped, words)["table"] == [*reading(FOUND, words)["table"], words("facts.grouped")]


def test_query_pictures_without_a_say_are_called_so():
    words = read_words("en")
    assert "had no say" in advice(FOUND, words)[1]
    assert reading(FOUND, words)["table"][1:] == [words("ablation.chooses_nothing")]


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(("seeds", "shown"), [(0, False), (1, True), (None, True)])
def test_zeros_of_the_text_tower_are_explained_where_they_are(language, seeds, shown):
    weights = [w | ({"energy": 0.0} if w["tower"] == "text" else {}) for w in FOUND["predictor"]["weights"]]
    known = {} if seeds is None else {"seeds_without_text": seeds}
    found = FOUND | {"predictor": FOUND["predictor"] | {"weights": weights} | known}
    said = read_words(language)("ablation.no_text", n=seeds or 2, seeds=2)
    assert (said in unescape(render_ablation(found, language))) == shown
    assert reading(FOUND, read_words(language))["map"] == [read_words(language)("ablation.map_note")]
