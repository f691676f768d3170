import json

import pytest
import torch

from kusabi.errors import CheckpointError, RunError
from kusabi.evaluation.stored import read_evaluation
from kusabi.recipes.run_folder import (
    append_record,
    load_checkpoint,
    open_run,
    read_records,
    save_checkpoint,
    trim_metrics,
)
from kusabi.spec import build
from kusabi.training.fit import Record

SPEC = build({})


def test_a_missing_run_starts_fresh_with_and_without_resume(tmp_path):
    assert open_run(tmp_path / "a", SPEC, resume=False) is False
    assert open_run(tmp_path / "b", SPEC, resume=True) is False
    assert (tmp_path / "a" / "spec.toml").read_bytes() == (tmp_path / "b" / "spec.toml").read_bytes()


def test_an_existing_run_is_refused_without_resume(tmp_path):
    open_run(tmp_path / "run", SPEC, resume=False)
    with pytest.raises(RunError, match="--resume"):
        open_run(tmp_path / "run", SPEC, resume=False)
    assert open_run(tmp_path / "run", SPEC, resume=True) is False


def test_another_request_is_refused_and_the_difference_is_named(tmp_path):
    open_run(tmp_path / "run", SPEC, resume=False)
    with pytest.raises(RunError, match=r"data\.shots is 16 there, 4 here"):
        open_run(tmp_path / "run", build({"data": {"shots": 4}}), resume=True)


def test_a_finished_run_is_known_by_its_evaluation(tmp_path):
    open_run(tmp_path / "run", SPEC, resume=False)
    with pytest.raises(RunError, match="unfinished"):
        read_evaluation(tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text("{}")
    assert open_run(tmp_path / "run", SPEC, resume=True) is True and read_evaluation(tmp_path / "run") == {}


def test_a_foreign_folder_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(RunError, match="not a run"):
        open_run(tmp_path / "thesis", SPEC, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file is in the way"):
        open_run(tmp_path / "file", SPEC, resume=True)


def test_a_start_that_was_killed_before_its_spec_was_written_is_taken_up(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".spec.toml.123").write_text("seed =")
    assert open_run(tmp_path / "run", SPEC, resume=True) is False


def test_checkpoints_come_back_and_damage_is_told(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, {"step": torch.tensor(3), "values": torch.arange(4.0)})
    assert load_checkpoint(tmp_path)["values"].tolist() == [0, 1, 2, 3]
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="delete it"):
        load_checkpoint(tmp_path)


def test_records_after_the_checkpoint_and_torn_lines_are_dropped(tmp_path):
    trim_metrics(tmp_path, 0)
    for step in range(1, 6):
        append_record(tmp_path, Record(step, 1.0, 0.5, 1e-3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    trim_metrics(tmp_path, 4)
    assert [record["step"] for record in read_records(tmp_path)] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"] == 1.0
