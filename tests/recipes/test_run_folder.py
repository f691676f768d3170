import json

import pytest

from kusabi.errors import RunError
from kusabi.evaluation.stored import read_evaluation, read_thumbnails
from kusabi.recipes.run_folder import (
    LOCK,
    adapter_folder,
    check_given,
    check_run,
    finish_run,
    json_lines,
    running,
    start_run,
)
from kusabi.spec_file import build

SPEC = build({})


def begin(folder, spec=SPEC, digest="d", backbone="b"):
    start_run(folder, spec, "adapt", {"data_digest": digest, "backbone_digest": backbone})


def test_a_missing_run_starts_fresh_with_and_without_resume(tmp_path):
    for resume in (True, False):
        assert check_run(tmp_path / "run", SPEC, resume, "adapt") is False
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused_without_resume(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        check_run(tmp_path / "run", SPEC, False, "adapt")
    assert check_run(tmp_path / "run", SPEC, True, "adapt") is False


def test_another_request_is_refused_and_the_difference_is_named(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match=r"data\.shots is 16 there, 4 here"):
        check_run(tmp_path / "run", build({"data": {"shots": 4}}), True, "adapt")


def test_other_pictures_are_refused(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="pictures have changed"):
        begin(tmp_path / "run", digest="e")


def test_another_model_is_refused_where_its_weights_are_known(tmp_path):
    begin(tmp_path / "run", backbone="b" * 64)
    with pytest.raises(RunError, match="weights of the model have changed"):
        begin(tmp_path / "run", backbone="c" * 64)
    check_given(tmp_path / "run", {"data_digest": "d"})  # of a Hub id, when nobody loads it


def test_a_field_that_is_gone_is_named(tmp_path):
    begin(tmp_path / "run", build({"data": {"names": {"ok": "fine"}}}))
    with pytest.raises(RunError, match=r"data\.names\.ok is 'fine' there, None here"):
        check_run(tmp_path / "run", SPEC, True, "adapt")


def test_a_run_of_another_verb_is_refused_by_its_name(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="of 'kusabi adapt', which goes on"):
        check_run(tmp_path / "run", SPEC, True, "curve")


def test_a_damaged_environment_is_told(tmp_path):
    begin(tmp_path / "run")
    (tmp_path / "run" / "environment.json").write_text('{"verb": "ad')
    with pytest.raises(RunError, match=r"environment\.json: damaged"):
        check_run(tmp_path / "run", SPEC, True, "adapt")


def test_a_name_may_hold_what_unicode_ends_a_line_with():
    rows = [{"file": "a\u2028b\u0085c.png"}, {"file": "d.png"}]
    assert json_lines("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)) == rows


def test_a_finished_run_is_known_by_its_evaluation_and_tidy(tmp_path):
    run = tmp_path / "run"
    begin(run)
    with pytest.raises(RunError, match="unfinished"):
        read_evaluation(run)
    (run / "adapter").mkdir()
    for left in (".metrics.jsonl.77", "adapter/.adapter.json.77", "checkpoint.safetensors"):
        (run / left).write_text("")
    finish_run(run, {"schema": 1, "task": {}})
    assert check_run(run, SPEC, True, "adapt") is True and read_evaluation(run) == {"schema": 1, "task": {}}
    assert {path.name for path in run.rglob("*")} == {"spec.toml", "environment.json", "evaluation.json", "adapter"}


def test_a_finished_run_whose_adapter_was_deleted_is_made_again(tmp_path):
    begin(run := tmp_path / "run")
    (run / "adapter").mkdir()
    finish_run(run, {"schema": 1, "task": {}})
    (run / "adapter").rmdir()
    assert check_run(run, SPEC, True, "adapt") is False
    with pytest.raises(RunError, match="an unfinished run"):
        adapter_folder(run)


def test_a_folder_of_another_verb_is_not_called_an_unfinished_run(tmp_path):
    start_run(tmp_path / "curve", SPEC, "curve", {"data_digest": "d"})
    with pytest.raises(RunError, match="made by 'kusabi curve', which leaves no adapter"):
        adapter_folder(tmp_path / "curve")


@pytest.mark.parametrize("content", ["{}", "[1]", '{"schema": 1', "[" * 100_000])
def test_damaged_results_and_thumbnails_are_told(tmp_path, content):
    for name, read in (("evaluation.json", read_evaluation), ("thumbnails.json", read_thumbnails)):
        (tmp_path / name).write_text(content)
        if (name, content) != ("thumbnails.json", "{}"):
            with pytest.raises(RunError, match=f"{name}: damaged"):
                read(tmp_path)


def test_a_foreign_folder_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(RunError, match="not a run"):
        check_run(tmp_path / "thesis", SPEC, True, "adapt")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file is in the way"):
        check_run(tmp_path / "file", SPEC, True, "adapt")


def test_a_start_that_was_killed_before_its_spec_was_written_is_taken_up(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".spec.toml.123").write_text("seed =")
    assert check_run(tmp_path / "run", SPEC, True, "adapt") is False


def test_one_process_at_a_time_works_in_a_run(tmp_path):
    run, about = tmp_path / "run", {"data_digest": "d"}
    with running(run, SPEC, "adapt", about, False):
        with (
            pytest.raises(RunError, match="another process is working there"),
            running(run, SPEC, "adapt", about, True),
        ):
            pytest.fail("two at once")
        assert (run / LOCK).exists()
    assert not (run / LOCK).exists()
    with running(run, SPEC, "adapt", about, True):
        pass


def test_who_was_slower_to_begin_takes_over_nothing(tmp_path):
    run, about = tmp_path / "run", {"data_digest": "d"}
    assert check_run(run, SPEC, False, "adapt") is False
    begin(run, build({"seed": 7}))
    with pytest.raises(RunError, match="exists already"), running(run, SPEC, "adapt", about, False):
        pytest.fail("taken over")
    assert "seed = 7" in (run / "spec.toml").read_text()


def test_a_lock_that_a_killed_process_left_stops_nobody(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text("")
    with running(tmp_path / "run", SPEC, "adapt", {"data_digest": "d"}, False):
        pass
