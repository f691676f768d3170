import pytest

from kusabi.evaluation.pool import pool
from kusabi.report import figures


def test_bars_and_whiskers_stand_at_the_numbers(evaluation_of):
    evaluation = pool([evaluation_of(seed=seed) for seed in range(3)])
    for row in figures.bars(evaluation)["rows"]:
        scores = evaluation[row["way"]]
        assert float(row["width"]) == pytest.approx(scores["accuracy"] * 100, abs=0.005)
        assert [float(row["low"]), float(row["high"])] == pytest.approx(
            [x * 100 for x in scores["interval"]], abs=0.005
        )
        assert [float(dot) for dot in row["dots"]] == pytest.approx([x * 100 for x in scores["accuracies"]], abs=0.005)


def test_chance_is_guessing_and_also_the_largest_class_when_it_dominates(evaluation_of):
    evaluation = evaluation_of()
    assert [mark["kind"] for mark in figures.bars(evaluation)["marks"]] == ["guess"]
    for row, n in zip(evaluation["zero_shot"]["per_class"], (10, 80, 10), strict=True):
        row["n"] = n
    guess, largest = figures.bars(evaluation)["marks"]
    assert guess["share"] == pytest.approx(1 / 3)
    assert (largest["share"], largest["name"], largest["left"]) == (0.8, "cracked", True)


def target(tower, layer, entries):
    return {"tower": tower, "layer": layer, "entries": entries}


def test_the_map_adds_up_the_entries_of_each_layer():
    targets = [target("vision", 3, 10), target("vision", 3, 5), target("vision", 2, 1), target("text", 0, 4)]
    drawn = figures.model_map(targets, {"vision": 4, "text": 2})
    vision, text = ({block["layer"]: block for block in tower["blocks"]} for tower in drawn["towers"])
    assert [vision[layer]["entries"] for layer in range(4)] == [0, 0, 1, 15]
    assert [text[layer]["entries"] for layer in range(2)] == [4, 0]
    assert [vision[layer]["shade"] for layer in range(4)] == [0, 0, 1, 5]
    assert vision[0]["y"] > vision[3]["y"], "the bottom layer is drawn below"
    assert (drawn["layers"], drawn["adapted"]) == (6, 3)


@pytest.mark.parametrize("layers", [{}, {"vision": None, "text": None}])
def test_a_map_without_layer_counts_shows_what_was_adapted(layers):
    drawn = figures.model_map([target("vision", 1, 3)], layers)
    assert [len(tower["blocks"]) for tower in drawn["towers"]] == [2, 0]
    assert figures.model_map([], layers)["adapted"] == 0


def places(drawn):
    return [tuple(map(float, place.split())) for place in drawn["path"].removeprefix("M").split(" L")]


def test_a_curve_runs_from_edge_to_edge_and_leaves_gaps_out():
    values = [2.0, None, 1.0, 0.5]
    records = [{"step": step, "loss": loss} for step, loss in enumerate(values, start=1)]
    drawn = figures.curve(records, "loss")
    assert places(drawn) == [(0, 0), (66.67, 50), (100, 75)]
    assert (drawn["first"], drawn["last"], drawn["start"], drawn["end"]) == (2.0, 0.5, 1, 4)


def test_an_accuracy_is_drawn_against_one_hundred_percent():
    drawn = figures.curve(
        [{"step": 1, "support_accuracy": 0.5}, {"step": 2, "support_accuracy": 0.75}], "support_accuracy"
    )
    assert places(drawn) == [(0, 50), (100, 25)]


def test_curves_of_one_step_none_or_a_million_are_drawable():
    assert figures.curve([], "loss") is None
    assert figures.curve([{"step": 1, "loss": None}, {"step": 2}], "loss") is None
    assert figures.curve([{"step": 7, "loss": 0.0}], "loss")["path"] == "M0.00 100.00 h0.01"
    long = places(figures.curve([{"step": step, "loss": 1.0} for step in range(10_001)], "loss"))
    assert len(long) <= figures.CURVE_POINTS + 1 and (long[0][0], long[-1][0]) == (0, 100)


def test_the_most_frequent_mistakes_come_first(evaluation_of):
    scores = evaluation_of()["zero_shot"]
    scores["confusion"] = [[5, 3, 0], [7, 1, 2], [0, 3, 0]]
    pairs = [(pair["true"], pair["answer"], pair["n"]) for pair in figures.confused_pairs(scores)]
    assert pairs == [
        ("cracked", "whole", 7),
        ("whole", "cracked", 3),
        ("stained", "cracked", 3),
        ("cracked", "stained", 2),
    ]
    assert figures.confused_pairs(scores, limit=1)[0]["share"] == pytest.approx(0.7)


def test_an_empty_row_of_a_confusion_matrix_has_no_colour():
    cells = figures.confusion({"confusion": [[0, 0], [1, 3]]})
    assert [[cell["share"] for cell in row] for row in cells] == [["0.00", "0.00"], ["0.25", "0.75"]]
    assert [[cell["right"] for cell in row] for row in cells] == [[True, False], [False, True]]


def test_bars_of_stages_lie_end_to_end_over_the_whole_width():
    drawn = figures.stages([{"seconds": seconds} for seconds in (1.0, 0.0, 6.0, 3.0)])
    assert [(bar["x"], bar["width"]) for bar in drawn] == [
        ("0.00", "10.00"),
        ("10.00", "0.00"),
        ("10.00", "60.00"),
        ("70.00", "30.00"),
    ]
    assert figures.stages([]) == [] and figures.stages([{"seconds": 0.0}]) == [{"x": "0.00", "width": "0.00"}]
