import json

import pytest
import torch

from kusabi.errors import CheckpointError, RunError
from kusabi.evaluation.stored import read_evaluation
from kusabi.recipes.run_folder import (
    append_record,
    check_run,
    finish_run,
    load_checkpoint,
    read_records,
    save_checkpoint,
    start_run,
    trim_metrics,
)
from kusabi.spec_file import build
from kusabi.training.fit import Record

SPEC = build({})


def begin(folder, spec=SPEC, digest="d"):
    start_run(folder, spec, {"data_digest": digest})


def test_a_missing_run_starts_fresh_with_and_without_resume(tmp_path):
    for resume in (True, False):
        assert check_run(tmp_path / "run", SPEC, resume) is False
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused_without_resume(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        check_run(tmp_path / "run", SPEC, resume=False)
    assert check_run(tmp_path / "run", SPEC, resume=True) is False


def test_another_request_is_refused_and_the_difference_is_named(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match=r"data\.shots is 16 there, 4 here"):
        check_run(tmp_path / "run", build({"data": {"shots": 4}}), resume=True)


def test_other_pictures_are_refused(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="pictures have changed"):
        begin(tmp_path / "run", digest="e")


def test_a_finished_run_is_known_by_its_evaluation_and_tidy(tmp_path):
    run = tmp_path / "run"
    begin(run)
    with pytest.raises(RunError, match="unfinished"):
        read_evaluation(run)
    (run / "adapter").mkdir()
    for left in (".metrics.jsonl.77", "adapter/.adapter.json.77", "checkpoint.safetensors"):
        (run / left).write_text("")
    finish_run(run, {"schema": 1})
    assert check_run(run, SPEC, resume=True) is True and read_evaluation(run) == {"schema": 1}
    assert {path.name for path in run.rglob("*")} == {"spec.toml", "environment.json", "evaluation.json", "adapter"}


def test_a_foreign_folder_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(RunError, match="not a run"):
        check_run(tmp_path / "thesis", SPEC, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file is in the way"):
        check_run(tmp_path / "file", SPEC, resume=True)


def test_a_start_that_was_killed_before_its_spec_was_written_is_taken_up(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".spec.toml.123").write_text("seed =")
    assert check_run(tmp_path / "run", SPEC, resume=True) is False


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
