from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import __main__ as runner
from benchmarks.accuracy.corruptions import GRID, corrupted
from benchmarks.accuracy.harder import base_to_new, corrupted_side, extras
from benchmarks.accuracy.harder_tables import page_corrupted, page_new, page_published
from benchmarks.accuracy.results import append, file_of, read_lines, right
from benchmarks.accuracy.summary import leading_peers
from benchmarks.accuracy.tasks import MANY_CLASSES, TASKS
from benchmarks.peers.answers import Answers
from benchmarks.tasks import Task
from kusabi.recipes.adapt import adapt
from kusabi.spec_file import build

COLOURS = {"blue": (30, 30, 200), "green": (30, 160, 60), "red": (200, 30, 30)}
KEY = ("colours", 2, 0)


def pictures(_cache):
    random = np.random.default_rng(0)

    def drawn(colour):
        return Image.fromarray((random.integers(0, 40, (84, 84, 3)) + np.array(colour)).clip(0, 255).astype(np.uint8))

    return tuple({name: [drawn(colour) for _ in range(4)] for name, colour in COLOURS.items()} for _ in range(2))


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "colours", Task("none", 84, pictures))
    plain = runner.Stage(("colours",), (2,), (0,), steps=2, query=12, out=tmp_path / "a")
    stages = {name: replace(plain, out=tmp_path / name, variant=name) for name in ("corrupted", "base_to_new")}
    monkeypatch.setattr(runner, "STAGES", {"a": plain, **stages})
    return stages | {"a": plain}


def run(tmp_path, stage, *words):
    runner.main(["--stage", stage, "--cache", str(tmp_path / "cache"), *words])


def test_ours_in_the_benchmark_is_what_adapt_gives_to_the_picture(small, tmp_path):
    run(tmp_path, "a", "--methods", "kusabi")
    line = read_lines(small["a"].out, "kusabi")[KEY]
    folder = runner.laid_out("colours", small["a"], tmp_path / "cache")
    found = adapt(str(folder), build(runner.base_of(small["a"], KEY)), tmp_path / "run")
    assert right(line).tolist() == [one["adapted"] == one["label"] for one in found["pictures"]]
    assert (line["accuracy"], line["data"]) == (found["adapted"]["accuracy"], found["task"]["data_digest"])
    assert line["log_loss"] == pytest.approx(found["adapted"]["nll"], abs=1e-9)


def test_new_classes_are_asked_about_and_never_learned_from(small, tmp_path):
    run(tmp_path, "base_to_new", "--methods", "kusabi,zero_shot,class_mean")
    spec = build(runner.base_of(small["base_to_new"], KEY))
    question, prompts = base_to_new(runner.laid_out("colours", small["a"], tmp_path / "cache"), spec)
    assert question.dataset.classes == ("blue", "green") and prompts[0][0] == "red"
    assert {example.label for example in question.split.support} == {0, 1} and len(question.split.support) == 4
    assert {example.label for example in question.split.query} == {0, 1, 2}
    lines = {m: read_lines(small["base_to_new"].out, m)[KEY] for m in ("kusabi", "zero_shot", "class_mean")}
    assert {line["query_pictures"] for line in lines.values()} == {12}
    assert all(line["new"] == 1.0 for line in lines.values()), "one new class alone is always found among the new"
    assert lines["class_mean"]["base"] == 1.0
    # Whatever a method learns of the trained classes, the texts share out the sides: the same for frozen features.
    red = [right(lines[method])[8:].tolist() for method in ("zero_shot", "class_mean")]
    assert sum(red[1]) >= sum(red[0])


def test_corrupted_pictures_are_asked_about_and_clean_ones_learned_from(small, tmp_path):
    run(tmp_path, "corrupted", "--methods", "kusabi,class_mean")
    line = read_lines(small["corrupted"].out, "kusabi")[KEY]
    assert line["query_pictures"] == 12 * len(GRID) and len(line["corruptions"]) == 20
    assert line["accuracy"] == pytest.approx(np.mean(list(line["corruptions"].values())))
    folder = runner.laid_out("colours", small["a"], tmp_path / "cache")
    question = corrupted_side(folder, build(runner.base_of(small["corrupted"], KEY)))
    one, last = question.split.query[0], question.split.query[-1]
    clean = Image.open(folder / one.file.partition("#")[0]).convert("RGB")
    assert one.file.endswith("#noise1") and last.file.endswith("#contrast5")
    assert question.dataset.open(one).tobytes() == corrupted(clean, "noise", 1, one.digest, 84).tobytes()
    support = question.split.support[0]
    assert question.dataset.open(support).tobytes() == Image.open(folder / support.file).convert("RGB").tobytes()


def test_base_new_and_their_harmonic_mean_are_counted_by_hand():
    chances = np.array([[0.6, 0.1, 0.3], [0.2, 0.1, 0.7], [0.3, 0.2, 0.5], [0.9, 0.05, 0.05]])
    found = extras("base_to_new", Answers(chances, 0, 0, 0.0), np.array([0, 1, 2, 2]), 2)
    assert (found["base"], found["new"]) == (0.5, 1.0) and found["harmonic_mean"] == pytest.approx(2 / 3)
    assert extras("plain", Answers(chances, 0, 0, 0.0), np.array([0, 1, 2, 2]), 3) == {}


def test_peers_of_later_stages_are_the_best_of_the_development_tasks_and_all_must_be_measured(small, monkeypatch):
    def of(accuracy, seeds=(0, 1)):
        return {("letters", 4, seed): {"accuracy": accuracy} for seed in seeds}

    lines = {"lora": of(0.5), "coop": of(0.7), "bitfit": of(0.6), "full": of(0.9, (0,)), "zero_shot": of(1.0)}
    lines["lora+prototypes"] = of(1.0)
    assert leading_peers(lines, ["letters"], (4,), (0, 1), 2) == (["coop", "bitfit"], ["full"])
    with pytest.raises(SystemExit, match=r"stage corrupted takes the 4 best peers .* runs are missing there of .*lora"):
        runner.methods_of("corrupted")


def test_an_unfinished_line_is_left_out_and_cut_off(tmp_path):
    line = {"method": "lora", "task": "digits", "shots": 4, "seed": 0, "accuracy": 0.5}
    append(tmp_path, line)
    with file_of(tmp_path, "lora").open("a", encoding="utf-8") as file:
        file.write('{"method": "lo')
    assert list(read_lines(tmp_path, "lora")) == [("digits", 4, 0)]
    append(tmp_path, {**line, "seed": 1})
    assert sorted(read_lines(tmp_path, "lora")) == [("digits", 4, 0), ("digits", 4, 1)]


def test_a_task_is_laid_out_once_and_not_under_the_feet_of_others(small, tmp_path):
    first = runner.laid_out("colours", small["a"], tmp_path)
    (first / "mark").touch()
    assert runner.laid_out("colours", small["corrupted"], tmp_path) == first and (first / "mark").exists()
    assert runner.laid_out("colours", replace(small["a"], query=6), tmp_path) != first


def test_pages_rank_whole_rows_and_name_what_is_missing():
    def line(base, new):
        return {"base": base, "new": new, "harmonic_mean": 2 * base * new / (base + new), "accuracy": base / 2}

    lines = {"lora": {("digits", 4, s): line(0.5, 0.5) for s in (0, 1)}, "coop": {("digits", 4, 0): line(1, 1)}}
    lines["kusabi"] = {("digits", 4, s): line(0.8, 0.4) for s in (0, 1)}
    titles = {"lora": "LoRA", "coop": "CoOp", "kusabi": "Kusabi"}
    shown = page_new(lines, titles, ["digits"], [4], [0, 1])
    assert "| Kusabi | 53.3 | 80.0 | 40.0 | 40.0 | 53.3 |\n| LoRA | 50.0 |" in shown
    assert "Runs are missing of: CoOp (1 of 2)." in shown and "| CoOp" not in shown
    grid = {f"{kind} {severity}": severity / 10 for kind, severity in GRID}
    worse = {"lora": {("digits", 4, 0): {"corruptions": grid}}}
    assert "| LoRA | 30.0 | 30.0 | 30.0 | 30.0 | 30.0 | 10.0 |" in page_corrupted(worse, titles, ["digits"], [4], [0])


def test_the_page_of_the_papers_schedules_compares_the_same_cells_and_shows_ours_beside_them():
    def of(accuracy, steps, seconds, keys=(("digits", 16, 0),)):
        return {key: {"accuracy": accuracy, "steps": steps, "seconds": seconds} for key in keys}

    short = {"lora": of(0.5, 100, 2.0), "kusabi": of(0.8, 100, 1.0), "coop": of(0.9, 100, 1.0)}
    shown = page_published(
        {"lora": of(0.625, 8000, 160.0)}, short, {"lora": "LoRA", "kusabi": "Kusabi"}, ["digits", "letters"], [16], [0]
    )
    assert "| LoRA | digits | 16 | 0 | 100 | 50.0 | 8,000 | 62.5 | +12.5 | 80 × |" in shown
    assert "| **Kusabi** | digits | 16 | 0 | 100 | 80.0 | – | – | – | – |" in shown
    assert "seed 0. Runs are missing of: LoRA (1 of 2)." in shown and "letters |" not in shown


def test_the_stages_of_new_classes_have_classes_enough():
    assert set(MANY_CLASSES) <= TASKS.keys()
    assert runner.STAGES["new"].tasks == [task for task in MANY_CLASSES if task not in ("fashion", "letters")]
