import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import __main__ as runner
from benchmarks.accuracy.ours import OURS, spec_of
from benchmarks.accuracy.plots import draw
from benchmarks.accuracy.ranks import draw_ranks, ranks
from benchmarks.accuracy.results import append, file_of, measured, missing, read_lines, right
from benchmarks.accuracy.summary import best_peer, cell_mean, difference, headline, mean_over, worst_against_zero_shot
from benchmarks.accuracy.tables import METHODS, TITLES, page
from benchmarks.accuracy.tasks import TASKS
from benchmarks.digits import digits
from benchmarks.peers.answers import Answers
from benchmarks.tasks import Task
from kusabi.evaluation.comparison import compare


def pictures(_cache):
    random = np.random.default_rng(0)
    colours = {"red": (200, 30, 30), "blue": (30, 30, 200)}

    def drawn(colour):
        return Image.fromarray((random.integers(0, 40, (84, 84, 3)) + np.array(colour)).clip(0, 255).astype(np.uint8))

    return tuple({name: [drawn(colour) for _ in range(6)] for name, colour in colours.items()} for _ in range(2))


@pytest.fixture
def stage(monkeypatch, tmp_path):
    small = runner.Stage(("colours",), (2,), (0,), steps=2, query=8, out=tmp_path / "results")
    monkeypatch.setattr(runner, "STAGES", {"a": small, "quick": replace(small, steps=1)})
    monkeypatch.setitem(TASKS, "colours", Task("none", 84, pictures))
    return small


def run(tmp_path, *words):
    runner.main(["--stage", "a", "--cache", str(tmp_path / "cache"), *words])


def test_what_is_missing_is_measured_once_and_found_again_by_a_check(stage, tmp_path, capsys):
    words = "--methods", "kusabi,class_mean,lora"
    run(tmp_path, *words)
    found = {method: read_lines(stage.out, method) for method in ("kusabi", "class_mean", "lora")}
    key = ("colours", 2, 0)
    assert all(list(lines) == [key] for lines in found.values())
    ours = found["kusabi"][key]
    assert ours["query_pictures"] == 8 and ours["accuracy"] == right(ours).mean() and ours["steps"] == 2
    assert ours["trained"] > 35_389 and found["class_mean"][key]["trained"] < ours["trained"]
    capsys.readouterr()
    run(tmp_path, *words)
    assert capsys.readouterr().out == ""
    for method, code in (("kusabi", 0), ("lora", 0)):
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path, "--check", "colours", method, "2", "0")
        assert stopped.value.code == code and "the same answers" in capsys.readouterr().out
    ours["right"] = "00"
    file_of(stage.out, "kusabi").write_text(json.dumps(ours) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "--check", "colours", "kusabi", "2", "0")
    assert stopped.value.code == 1 and "NOT the same" in capsys.readouterr().out


def test_what_is_not_known_or_was_not_measured_is_refused(stage, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--methods", "kusabi,magic")
    assert "magic: not known; choose from kusabi, " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="not among the results"):
        run(tmp_path, "--check", "colours", "kusabi", "2", "0")


def test_every_method_of_ours_is_a_spec_and_every_method_has_a_title():
    base = {"seed": 3, "data": {"shots": 4}}
    assert all(spec_of(name, base).seed == 3 for name in OURS)
    assert set(METHODS) == set(TITLES)
    budgets = {spec_of(f"kusabi:{name}", base).adapter.density for name in ("saft", "lora", "mosa", "shira-snip")}
    assert budgets == {0.005}


def test_the_bits_of_a_line_are_the_answers():
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1])
    chances = np.full((9, 2), 0.5)
    chances[:, 0] = [0.9, 0.2, 0.8, 0.1, 0.3, 0.6, 0.7, 0.4, 0.51]
    chances[:, 1] = 1 - chances[:, 0]
    line = measured(Answers(chances, 5, 20, 1.0), labels)
    assert right(line).tolist() == [True, True, False, False, True, True, True, True, False]
    assert line["accuracy"] == pytest.approx(6 / 9)
    assert line["log_loss"] == pytest.approx(-np.log(chances[np.arange(9), labels]).mean())


def line(method, task, shots, seed, answers):
    chances = np.zeros((len(answers), 2))
    chances[np.arange(len(answers)), (~np.array(answers)).astype(int)] = 1.0
    found = measured(Answers(chances, 10, 40, 1.0), np.zeros(len(answers), dtype=np.int64))
    return {"method": method, "task": task, "shots": shots, "seed": seed, "processor": "one", **found}


@pytest.fixture
def lines():
    """Two tasks, two seeds: ours right in 3 of 4, the peer in 2 of 4, zero-shot in 1 of 4."""
    of = {"kusabi": [1, 1, 1, 0], "kusabi-rows": [1, 1, 1, 1], "lora": [1, 1, 0, 0], "zero_shot": [0, 0, 0, 1]}
    return {
        method: {(t, 4, s): line(method, t, 4, s, np.array(a, bool)) for t in ("digits", "fashion") for s in (0, 1)}
        for method, a in of.items()
    }


def test_means_are_of_whole_rows_and_the_best_peer_is_none_of_ours(lines):
    assert mean_over(lines["kusabi"], ["digits", "fashion"], 4, (0, 1)) == 0.75
    assert mean_over(lines["kusabi"], ["digits", "fashion"], 4, (0, 1, 2)) is None
    assert cell_mean(lines["kusabi"], "digits", 1, (0,)) is None
    assert best_peer(lines, ["digits"], 4, (0, 1)) == "lora"
    assert best_peer(lines, ["digits"], 8, (0, 1)) is None
    assert headline(["fashion", "digits", "letters"]) == ["digits"]


def test_a_difference_is_that_of_the_paired_comparison(lines):
    found = difference(lines["kusabi"], lines["lora"], ["digits"], 4, (0, 1))
    wanted = compare([right(lines["kusabi"]["digits", 4, s]) for s in (0, 1)],
                     [right(lines["lora"]["digits", 4, s]) for s in (0, 1)])  # fmt: skip
    assert found is not None and found.value == pytest.approx(100 * wanted["value"]) == 25
    assert [found.low, found.high] == pytest.approx([100 * bound for bound in wanted["interval"]])
    both = difference(lines["kusabi"], lines["lora"], ["digits", "fashion"], 4, (0, 1))
    assert both is not None and both.value == 25 and both.high - both.low < found.high - found.low
    assert difference(lines["kusabi"], lines["lora"], ["digits"], 4, (0, 5)) is None
    assert worst_against_zero_shot(lines, "lora", (0, 1)) == (25.0, "digits", 4)


def test_the_page_shows_what_is_there_and_a_dash_where_nothing_is(lines, tmp_path):
    shown = page(lines, ("digits", "fashion"), (4, 16), (0, 1))
    assert "| **Kusabi (default)** | 75.0 | – | 75.0 | – |" in shown
    losses = shown[shown.index("## Are the probabilities") : shown.index("## Ours against")]
    rows = [row for row in losses.splitlines() if row.startswith("| ")][1:]
    wanted = lines["lora"]["digits", 4, 0]["log_loss"]
    assert f"| LoRA, all linears (PEFT) | {wanted:.2f} | – | {wanted:.2f} | – |" in rows
    assert rows.index(next(r for r in rows if "rows" in r)) < rows.index(next(r for r in rows if "zero-shot" in r))
    assert "Runs by processor: one 16." in shown
    assert "+25.0" in shown and "LoRA, all linears (PEFT)" in shown
    draw(lines, TITLES, ("digits", "fashion"), (4,), (0, 1), tmp_path / "plot.svg")
    assert "lora" in (tmp_path / "plot.svg").read_text(encoding="utf-8") or (tmp_path / "plot.svg").stat().st_size > 1e4
    draw(lines, TITLES, ("digits", "fashion"), (4, 16), (0, 1), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_cells_that_are_not_asked_for_change_nothing_on_a_page(lines):
    asked = ("digits", "fashion"), (4,), (0, 1)
    before = page(lines, *asked)
    for other in (("digits", 16, 0), ("digits", 4, 2), ("textile", 4, 0)):
        lines["lora"][other] = {
            **lines["lora"]["digits", 4, 0],
            "seconds": 1e4,
            "trained": 10**9,
            "processor": "another",
        }
    lines["coop"] = {("textile", 4, 0): lines["lora"]["digits", 4, 0]}
    assert page(lines, *asked) == before


def test_places_are_of_headline_cells_and_ties_share_theirs(lines, tmp_path):
    lines["tip_adapter"] = lines["lora"]
    lines["coop"] = {("digits", 4, 0): lines["lora"]["digits", 4, 0]}  # not measured everywhere
    found = ranks(lines, ("digits", "fashion"), (4,), (0, 1))
    assert list(found.items()) == [
        ("kusabi-rows", [1.0]), ("kusabi", [2.0]), ("lora", [3.5]), ("tip_adapter", [3.5]), ("zero_shot", [5.0])
    ]  # fmt: skip
    draw_ranks(lines, TITLES, ("digits", "fashion"), (4,), (0, 1), tmp_path / "ranks.svg")
    assert (tmp_path / "ranks.svg").stat().st_size > 1e4
    draw_ranks(lines, TITLES, ("digits", "fashion"), (16,), (0, 1), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_means_that_differ_by_rounding_alone_share_their_places():
    def of(accuracies):
        return {("digits", 4, seed): {"accuracy": one} for seed, one in enumerate(accuracies)}

    lines = {"kusabi": of([0.708, 0.684, 0.654]), "lora": of([0.654, 0.708, 0.684])}
    assert ranks(lines, ("digits",), (4,), (0, 1, 2)) == {"kusabi": [1.5], "lora": [1.5]}


def test_of_several_lines_for_one_cell_the_last_counts(tmp_path):
    for answers in ([1, 0], [1, 1]):
        append(tmp_path, line("kusabi:so-paper", "digits", 4, 0, np.array(answers, bool)))
    assert read_lines(tmp_path, "kusabi:so-paper")["digits", 4, 0]["accuracy"] == 1.0
    assert missing(tmp_path, ["kusabi:so-paper", "lora"], ("digits", 4, 0)) == ["lora"]


def test_digits_of_both_sides_are_apart(tmp_path):
    learned, judged = digits(tmp_path)
    assert list(learned) == list(judged) and len(learned) == 10
    assert sum(map(len, learned.values())) + sum(map(len, judged.values())) == 1797
    assert min(map(len, [*learned.values(), *judged.values()])) >= 80
