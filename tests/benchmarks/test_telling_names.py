from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import telling_names
from benchmarks.tasks import Task
from benchmarks.telling_names import PAPERS, SEEDS, TASKS, WAYS, table, tasks_of


def drawn(ink, paper):
    shown = np.full((84, 84), paper, np.uint8)
    shown[20:60, 30:50] = ink
    return Image.fromarray(shown)


@pytest.mark.parametrize("picture", [drawn(0, 255), drawn(255, 0)])
def test_an_outline_is_cut_out_of_its_paper_whether_ink_or_paper_is_dark(monkeypatch, picture):
    pools = {"A": [picture] * 3, "B": [picture] * 3}
    monkeypatch.setitem(telling_names.DEVELOPMENT, "fashion", Task("none", 84, lambda _: (pools, pools)))
    learned, judged = TASKS["red and green clothes"].pictures(None)
    assert {name: len(of) for name, of in learned.items()} == {"red": 3, "green": 3} and judged.keys() == learned.keys()
    shown = np.asarray(learned["green"][0])
    assert tuple(shown[40, 40]) == PAPERS["green"] and tuple(shown[5, 5]) == (255, 255, 255)


def test_the_table_has_a_row_for_every_task_and_a_mean():
    ways = ("zero_shot", "linear_probe", *WAYS)
    lines: list[dict[str, Any]] = [
        {"task": task, "shots": shots, "seed": seed, "accuracy": dict.fromkeys(ways, 0.5 + seed / 4)}
        for shots in SEEDS
        for task in tasks_of(shots)
        for seed in (0, 1)
    ]
    for line in lines:
        if line["shots"] == 1:
            del line["shots"]  # as the first ones were written
    rows = table(lines).split("\n")
    assert len(rows) == 2 + sum(len(tasks_of(shots)) + 1 for shots in SEEDS)
    assert rows[-1] == "| 4 | mean | " + " | ".join(6 * ["62.5"]) + " |"
