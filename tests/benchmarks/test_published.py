from dataclasses import replace

import pytest

from benchmarks.accuracy import __main__ as runner
from benchmarks.accuracy import published
from benchmarks.accuracy.classic import CLASSIC
from benchmarks.accuracy.published import PUBLISHED, run_published, steps_of
from benchmarks.peers import PEERS
from benchmarks.peers.settings import SETTINGS


def test_a_published_schedule_is_run_with_its_rate_and_the_settings_are_put_back(monkeypatch):
    seen = {}

    def run(material):
        seen.update(steps=material, rates=[SETTINGS[name].rate for name in PUBLISHED["two_stage"].names])
        return "answers"

    class Fields:
        shots = 3

    monkeypatch.setattr(published, "PEERS", {"two_stage": replace(PEERS["two_stage"], run=run)})
    monkeypatch.setattr(published, "replace", lambda one, **fields: fields if one is Fields else replace(one, **fields))
    before = dict(SETTINGS)
    assert run_published("two_stage", Fields) == "answers"
    assert seen == {"steps": {"steps": 900}, "rates": [2e-4, 2e-4]} and before == SETTINGS
    assert steps_of("clip_lora", 16) == 8000


def test_results_of_another_backbone_go_to_a_folder_of_their_own():
    stage = runner.STAGES["classic"].of("openai/clip-vit-base-patch16")
    assert stage.out.name == "accuracy_classic-clip-vit-base-patch16"
    assert runner.base_of(stage, ("dtd", 4, 0))["backbone"] == {"backbone": "openai/clip-vit-base-patch16"}
    own = runner.STAGES["a"].of(None)
    assert own == runner.STAGES["a"]
    assert runner.base_of(own, ("digits", 4, 0))["backbone"] == {"backbone": "mini", "input_size": 84}


@pytest.mark.parametrize("name", list(runner.STAGES))
def test_no_stage_but_that_of_the_classic_tasks_needs_what_cannot_be_had(name):
    classic = set(runner.STAGES[name].tasks) & set(CLASSIC)
    assert bool(classic) == (name == "classic")
