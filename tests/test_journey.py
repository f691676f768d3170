"""One story through the command line: what a stranger does with a folder of pictures."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("kusabi"))
SHORT = [
    "--shots",
    "4",
    "--steps",
    "6",
    "--input-size",
    "84",
    "--views",
    "2",
    "--checkpoint-every",
    "2",
    "--threads",
    "1",
]


def kusabi(*words, timeout=300):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    return subprocess.run(
        [PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


def weights(run):
    return hashlib.sha256((run / "adapter" / "adapter.safetensors").read_bytes()).hexdigest()


def evaluation(run):
    return json.loads((run / "evaluation.json").read_text(encoding="utf-8"))


def steps(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def refused(done, *culprits):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and all(culprit in done.stderr for culprit in culprits), done.stderr
    return True


def test_a_folder_becomes_an_adapter_an_evaluation_and_a_page(tiles, tmp_path):
    data, run = tiles(), tmp_path / "run"
    planned = json.loads(kusabi("plan", data, "--json").stdout)
    assert planned["entries"] == sum(target["entries"] for target in planned["targets"]) > 0
    done = kusabi("adapt", data, "--out", run, "--seed", 1, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "adapter minus zero-shot" in done.stdout
    found = evaluation(run)
    for way in ("zero_shot", "class_mean", "linear_probe", "adapted"):
        low, high = found[way]["interval"]
        assert 0 <= low <= found[way]["accuracy"] <= high <= 1 and found[way]["n"] == 24
    assert found["adapter"]["entries"] == planned["entries"]
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    assert not (run / "checkpoint.safetensors").exists()
    digest = weights(run)

    assert refused(kusabi("adapt", data, "--out", run, "--seed", 1, *SHORT), "--resume", str(run))
    assert kusabi("adapt", data, "--out", run, "--seed", 1, "--resume", *SHORT).returncode == 0
    assert refused(kusabi("adapt", data, "--out", run, "--seed", 2, "--resume", *SHORT), "seed")
    assert weights(run) == digest

    hurt = tmp_path / "hurt"
    command = [PROGRAM, "adapt", str(data), "--out", str(hurt), "--seed", "1", *SHORT]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    record = hurt / "metrics.jsonl"
    for _ in range(3000):
        if process.poll() is not None or (record.exists() and record.read_bytes().count(b"\n") >= 3):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert kusabi("adapt", data, "--out", hurt, "--seed", 1, "--resume", *SHORT).returncode == 0
    assert weights(hurt) == digest and steps(hurt) == steps(run)
    assert evaluation(hurt)["adapted"] == found["adapted"]

    pictures = sorted((data / "test" / "C3").glob("*.png"))[:3]
    answers = json.loads(kusabi("predict", run, *pictures, "--json").stdout)
    assert [answer["file"] for answer in answers] == [str(picture) for picture in pictures]
    assert all(abs(sum(answer["scores"].values()) - 1) < 1e-6 for answer in answers)
    more = json.loads(kusabi("predict", run, pictures[0], "--also", "red", "--also", "dent", "--json").stdout)
    assert list(more[0]["scores"]) == ["A1", "B2", "C3", "red", "dent"]
    assert refused(kusabi("predict", run, pictures[0], "--also", "B2"), "B2")
    again = json.loads(kusabi("evaluate", run, data, "--json").stdout)
    assert again["adapted"]["accuracy"] == found["adapted"]["accuracy"]
    for language, name in (("en", "report.html"), ("ja", "report.ja.html")):
        assert kusabi("report", run, "--language", language).returncode == 0
        assert "<html" in (run / name).read_text(encoding="utf-8")

    (run / "adapter" / "adapter.safetensors").write_bytes(b"torn")
    assert refused(kusabi("predict", run, pictures[0]), "adapter.safetensors")


def test_mistakes_are_told_plainly(tiles, tmp_path):
    data = tiles()
    assert refused(kusabi("adapt", tmp_path / "nowhere", "--out", tmp_path / "x"), "nowhere")
    assert refused(kusabi("adapt", data, "--densty", "1"), "--densty")
    assert refused(kusabi("adapt", data, "--density", "2"), "density")
    spec = tmp_path / "spec.toml"
    spec.write_text("[training]\nstep = 3\n")
    assert refused(kusabi("adapt", data, "--spec-file", spec), "training.step", "steps")
    (data / "train" / "A1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (data / "train" / "B2" / "empty.png").write_bytes(b"")
    assert refused(kusabi("baseline", data), "broken.png", "empty.png")
    assert refused(kusabi("predict", tmp_path, data / "train" / "A1" / "broken.png"), "without adapter")
    assert not (tmp_path / "x").exists()


def test_a_folder_too_small_to_hold_anything_out_is_cross_validated(tiles, tmp_path):
    data = tiles(train=5, test=0)
    done = kusabi("adapt", data, "--out", tmp_path / "run", "--profile", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "start-up" in done.stdout
    found = evaluation(tmp_path / "run")
    stages = {stage["stage"]: stage["seconds"] for stage in found["cost"]["stages"]}
    assert "training" in stages and not any("fold" in stage for stage in stages)
    assert "cross-validation" in found["task"]["held_out"] and found["cross_validated"]
    assert found["adapted"]["n"] == 12 and steps(tmp_path / "run") == [1, 2, 3, 4, 5, 6]


def test_baseline_recommends_something_with_its_reason(tiles):
    found = json.loads(kusabi("baseline", tiles(), "--json", *SHORT[:2], "--views", "1", "--threads", "1").stdout)
    assert found["recommendation"]["action"] in ("zero-shot suffices", "adapt", "label more", "choose another model")
    assert "%" in found["recommendation"]["reason"] or "pictures" in found["recommendation"]["reason"]


def test_several_models_are_compared_before_anybody_commits_to_one(tiles, tiny, tmp_path):
    data, run = tiles(), tmp_path / "choice"
    command = ["baseline", data, "--backbone", "mini", "--backbone", tmp_path / "nowhere", "--backbone", tiny("clip")]
    command += [*SHORT[:4], "--input-size", "56", "--views", "1", "--layers", "last-1", "--threads", "1", "--out", run]
    done = kusabi(*command)
    assert done.returncode == 0, done.stderr
    assert "nowhere could not be measured" in done.stdout and "Chosen with hindsight" in done.stdout
    found = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    mini, lost, clip = found["candidates"]
    assert lost["error"] and mini["licence"]["name"] == "apache-2.0" and clip["licence"]["name"] is None
    assert mini["adapted"]["n"] == clip["adapted"]["n"] == 24
    assert found["recommendation"]["best"] in ("mini", clip["name"])
    assert json.loads(kusabi(*command, "--resume", "--json").stdout)["candidates"][0] == mini
    assert kusabi("report", run, "--language", "ja").returncode == 0
    assert "apache-2.0" in (run / "report.ja.html").read_text(encoding="utf-8")
    assert refused(kusabi("baseline", data, "--backbone", tmp_path / "a", "--backbone", tmp_path / "b"), "none of 2")
    assert refused(kusabi("baseline", data, "--resume"), "--out")


@pytest.mark.parametrize("verb", ["adapt", "baseline", "plan", "evaluate", "predict", "report", "demo"])
def test_every_verb_explains_itself(verb):
    done = kusabi(verb, "--help")
    assert done.returncode == 0 and "--" in done.stdout
