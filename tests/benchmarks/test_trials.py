import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import few_label_safety, kinds, moving_support, trials
from benchmarks.tasks import Task
from benchmarks.trials import Trials, main, read, table


def pictures(_cache):
    random = np.random.default_rng(0)
    colours = {"red": (200, 30, 30), "blue": (30, 30, 200)}

    def drawn(colour):
        return Image.fromarray((random.integers(0, 40, (84, 84, 3)) + np.array(colour)).clip(0, 255).astype(np.uint8))

    return tuple({name: [drawn(colour) for _ in range(6)] for name, colour in colours.items()} for _ in range(2))


SMALL = Trials(
    name="small",
    about="Two settings.",
    rounds=({"static": {}}, {"moving": {"moves": {"move_every": 1}}}),
    shots=(2,),
    seeds=(0,),
    base={"training": {"steps": 2}, "data": {"views": 1}, "adapter": {"budget": 100, "layers": "last-1"}},
)


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setattr(trials, "DEVELOPMENT", {"colours": Task("none", 84, pictures)})


def test_each_run_is_one_line_and_is_taken_once(task, tmp_path, capsys):
    words = ["--out", str(tmp_path / "small.jsonl"), "--cache", str(tmp_path), "--tasks", "colours"]
    main(SMALL, words)
    lines = read(tmp_path / "small.jsonl")
    assert [(line["setting"], line["shots"], line["seed"], line["entries"]) for line in lines] == [
        ("static", 2, 0, 100), ("moving", 2, 0, 100),
    ]  # fmt: skip
    assert all(line["query_pictures"] == 12 and 0 <= line["accuracy"] <= 1 for line in lines)
    assert {line["command"] for line in lines} == {"python -m benchmarks.small --tasks colours"}, "no folder of ours"
    before = (tmp_path / "small.jsonl").read_bytes()
    main(SMALL, words)
    assert (tmp_path / "small.jsonl").read_bytes() == before
    (tmp_path / "small.jsonl").write_text(json.dumps(lines[0]) + "\n")
    main(SMALL, words)
    again = read(tmp_path / "small.jsonl")
    assert [line["accuracy"] for line in again] == [line["accuracy"] for line in lines]
    capsys.readouterr()
    main(SMALL, [*words, "--table"])
    assert "| static | 100 |" in capsys.readouterr().out


def test_a_table_ranks_by_the_mean_and_stars_what_is_incomplete(task):
    peers = {"linear_probe": 0.5}
    lines = [
        {"task": "colours", "shots": 2, "setting": s, "accuracy": a, "entries": 1000, "peers": peers}
        for s, a in (("static", 0.25), ("moving", 0.75))
    ]
    rows = table(SMALL, lines).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| moving", "| linear probe", "| static"]
    assert rows[0] == "| moving | 1,000 | 75.0 | 75.00 |"
    assert table(Trials(**{**vars(SMALL), "seeds": (0, 1)}), lines).splitlines()[2].endswith("75.00 * |")


@pytest.mark.parametrize("experiment", [moving_support.TRIALS, few_label_safety.TRIALS, kinds.TRIALS])
def test_every_setting_of_the_experiments_is_a_spec_of_its_own(experiment):
    specs = [experiment.spec(84, 1, 0, fields).digest for fields in experiment.settings.values()]
    assert len(set(specs)) == len(specs)
