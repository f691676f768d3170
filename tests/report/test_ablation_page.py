from kusabi.report.ablation_page import advice, heat, render_ablation, trials
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
