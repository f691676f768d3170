import time

import pytest
import torch
from safetensors.torch import load_file

from kusabi.backbones.digest import module_digest
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import RunError
from kusabi.evaluation.stored import read_evaluation
from kusabi.recipes import adapt as module
from kusabi.recipes.adapt import adapt
from kusabi.recipes.stored_adapter import evaluate_stored
from kusabi.report.words import read_words
from kusabi.spec_file import build
from kusabi.training.precision import resolve


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["clip", "dinov2+bert"])
def test_a_backbone_of_any_dtype_is_adapted_and_what_was_stored_answers_the_same(tiny, tiles, tmp_path, kind, dtype):
    torch.set_num_threads(1)
    folder, run = tiles(train=3, test=4), tmp_path / "run"
    spec = build(
        {
            "backbone": {"backbone": str(tiny(kind)), "dtype": dtype},
            "adapter": {"density": 0.5},
            "data": {"shots": 2, "views": 2},
            "training": {"steps": 3, "learning_rate": 1e-2},
        }
    )
    before = load_backbone(str(tiny(kind)), dtype=dtype)
    found = adapt(str(folder), spec, run)
    assert found["training"]["precision"] == (resolve("auto", "cpu") if dtype == "float32" else dtype)
    assert load_file(run / "adapter" / "adapter.safetensors")["values"].count_nonzero() > 0
    again = evaluate_stored(run, str(folder))
    assert again["adapted"]["accuracy"] == found["adapted"]["accuracy"]
    assert module_digest(before.module) == module_digest(load_backbone(str(tiny(kind)), dtype=dtype).module)


def test_a_finished_run_is_handed_out_again_for_the_same_pictures_and_neighbours_alone(
    tiny, tiles, tmp_path, monkeypatch
):
    fields = {
        "backbone": {"backbone": str(tiny("clip"))}, "data": {"shots": 2, "views": 1}, "training": {"steps": 2},
        "adapter": {"budget": 50},
    }  # fmt: skip
    folder, beside, run = tiles(train=3, test=4), tmp_path / "beside", tmp_path / "run"
    adapt(str(folder), build(fields), beside)
    spec = build({**fields, "adapter": {"budget": 50, "beside": [str(beside)]}})
    found = adapt(str(folder), spec, run)
    with monkeypatch.context() as patched:
        patched.setattr(module, "pose", lambda *_, **__: pytest.fail("nothing is to be trained"))
        assert adapt(str(folder), spec, run, resume=True) == found
    beside.rename(tmp_path / "before")
    adapt(str(folder), build({**fields, "seed": 1}), beside)
    with pytest.raises(
        RunError, match=r"run: the adapters beside have changed since this run began \(digest \w{12} th"
    ):
        adapt(str(folder), spec, run, resume=True)
    tiles(train=3, test=4, seed=9)
    with pytest.raises(RunError, match="the pictures and the adapters beside have changed"):
        adapt(str(folder), spec, run, resume=True)


def test_a_profile_accounts_for_the_time_of_the_run_and_changes_nothing_else(tiny, tiles, tmp_path):
    fields = {
        "backbone": {"backbone": str(tiny("clip"))}, "data": {"shots": 2, "views": 1}, "training": {"steps": 2},
        "adapter": {"budget": 50},
    }  # fmt: skip
    folder, spec, told = tiles(train=3, test=4), build(fields), []
    plain = adapt(str(folder), spec, tmp_path / "plain", watch=lambda stage, *_, **__: told.append(stage))
    assert "stages" not in plain["cost"]
    began = time.perf_counter()
    found = adapt(str(folder), spec, tmp_path / "profiled", profile=True)
    passed = time.perf_counter() - began
    assert read_evaluation(tmp_path / "profiled") == found
    stages = found["cost"]["stages"]
    assert [one["stage"] for one in stages] == [*dict.fromkeys(told), "evaluation"]
    assert all(f"stage.{one['stage']}" in read_words("en").texts for one in stages), "the page has a word for each"
    seconds = {one["stage"]: one["seconds"] for one in stages}
    assert all(spent >= 0 for spent in seconds.values()) and sum(seconds.values()) <= passed
    # The record says how long the run took before it is written up, which is the last stage.
    assert found["cost"]["total_seconds"] <= sum(seconds.values())
    assert sum(seconds.values()) - seconds["evaluation"] == pytest.approx(found["cost"]["total_seconds"], abs=0.2)
    peaks = [one["peak_memory_bytes"] for one in stages]
    assert peaks == sorted(peaks) and peaks[-1] >= found["cost"]["peak_memory_bytes"]
    same = ("task", "adapter", "adapted", "zero_shot", "linear_probe", "flips", "pictures")
    assert [found[key] for key in same] == [plain[key] for key in same]
    assert adapt(str(folder), spec, tmp_path / "plain", resume=True, profile=True) == plain, "a finished run stays"


def test_one_picture_a_class_is_one_shot_whatever_was_asked(tiny, tiles, tmp_path):
    folder, stored = tiles(train=1, test=2), []
    for shots in (1, 16):
        fields = {"data": {"shots": shots, "views": 2}, "training": {"steps": 2}, "adapter": {"budget": 50}}
        adapt(str(folder), build({**fields, "backbone": {"backbone": str(tiny("clip"))}}), tmp_path / str(shots))
        stored.append((tmp_path / str(shots) / "adapter" / "adapter.safetensors").read_bytes())
    assert stored[0] == stored[1]
