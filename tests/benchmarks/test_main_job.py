import pytest

from benchmarks import main_job
from benchmarks.tasks import TASKS


def test_a_trial_never_overwrites_the_committed_results(capsys):
    for words in (["--steps", "2"], ["--views", "1"]):
        with pytest.raises(SystemExit):
            main_job.arguments(words)
    assert "give another --out" in capsys.readouterr().err
    assert main_job.arguments(["--steps", "2", "--out", "trial.json"]).steps == 2


def test_an_unknown_task_is_named(capsys):
    with pytest.raises(SystemExit):
        main_job.arguments(["--tasks", "textile,birds"])
    assert "birds" in capsys.readouterr().err


@pytest.mark.parametrize("name", TASKS)
def test_the_spec_of_a_task_is_the_default_but_for_size_shots_and_seed(name):
    asked = main_job.arguments([])
    spec = main_job.spec_of(name, 4, 2, asked).model_dump()
    assert (spec["seed"], spec["data"]["shots"]) == (2, 4)
    assert spec["backbone"]["input_size"] == TASKS[name].input_size
    plain = main_job.build({}).model_dump()
    assert spec["adapter"] == plain["adapter"] and spec["training"] == plain["training"]
    assert {**spec["data"], "shots": 16} == plain["data"]
