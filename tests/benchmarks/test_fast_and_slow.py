"""The slow path is slow in every way it claims, learns the same thing, and leaves nothing switched off."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import fast_and_slow
from benchmarks.fast_and_slow import PATHS, lines_of, measure, slowly, table
from benchmarks.pool import lay_out
from kusabi.adapters.entry_training import plain_layers
from kusabi.training import fit, forward, views

BASE = {
    "seed": 0, "backbone": {"backbone": "mini", "input_size": 84}, "data": {"shots": 4, "views": 1},
    "training": {"steps": 3, "precision": "float32"}, "adapter": {"layers": "last-1", "budget": 500},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)

    def drawn(colour):
        return Image.fromarray((random.integers(0, 90, (84, 84, 3)) + np.array(colour)).clip(0, 255).astype(np.uint8))

    colours = {"red": (120, 60, 60), "blue": (60, 60, 120)}
    sides = [{name: [drawn(colour) for _ in range(8)] for name, colour in colours.items()} for _ in range(2)]
    lay_out(*sides, tmp_path / "pictures")
    return tmp_path / "pictures"


def test_both_paths_learn_the_same_in_fp32(folder, monkeypatch):
    called: list[str] = []

    def watched(module, name):
        real = getattr(module, name)

        def call(*args, **more):
            called.append(name)
            return real(*args, **more)

        monkeypatch.setattr(module, name, call)

    watched(fit, "plain_layers")
    watched(forward, "class_token_alone")
    fast = measure(folder, BASE, "fast")
    assert {"plain_layers", "class_token_alone"} <= set(called)
    called.clear()
    slow = measure(folder, BASE, "slow")
    assert not called, "the slow path goes none of the short ways"
    assert fast["right"] == slow["right"]
    assert fast["log_loss"] == pytest.approx(slow["log_loss"], abs=1e-3)
    assert fast["precision"] == slow["precision"] == "float32"


def test_the_fast_path_is_back_after_an_error():
    kept = views.CACHE_BYTES
    with pytest.raises(KeyError), slowly():
        assert views.CACHE_BYTES == 0
        raise KeyError
    assert kept == views.CACHE_BYTES
    assert fit.plain_layers is plain_layers


def test_what_is_measured_is_taken_once_and_shown_in_pairs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast_and_slow, "RESULTS", tmp_path / "found.jsonl")
    monkeypatch.setattr(fast_and_slow, "laid_out", lambda *_: folder)
    monkeypatch.setattr(fast_and_slow, "base_of", lambda _stage, key: {**BASE, "seed": key[2]})
    for name, value in {"TASKS": ("colours",), "SHOTS": (4,), "SEEDS": (0, 1)}.items():
        monkeypatch.setattr(fast_and_slow, name, value)
    fast_and_slow.main([])
    before = (tmp_path / "found.jsonl").read_text()
    assert len(before.splitlines()) == 2 * len(PATHS)
    fast_and_slow.main([])
    assert (tmp_path / "found.jsonl").read_text() == before
    (tmp_path / "found.jsonl").write_text("".join(f"{line}\n" for line in before.splitlines()[:3]))
    shown = table(lines_of(tmp_path / "found.jsonl"))
    assert "| colours | 4 |" in shown, "an unfinished pair is left out, finished ones are shown"
    assert json.loads(before.splitlines()[0])["path"] == "fast"
    capsys.readouterr()
