import json

import pytest

from kusabi.errors import AdapterError, RunError, SpecError
from kusabi.evaluation.stored import ABLATION
from kusabi.recipes import ablate as module
from kusabi.recipes.ablate import TRIALS, ablate
from kusabi.recipes.adapt import adapt
from kusabi.report.written import write_report
from kusabi.spec_file import PLACEMENT, build, overlay, placement_fields

QUICK = {
    "backbone": {"input_size": 28},
    "data": {"views": 1, "shots": 2},
    "adapter": {"layers": "last-2", "budget": 300},
    "training": {"steps": 2, "batch_size": 4},
}


@pytest.fixture
def spec():
    return build(QUICK)


def test_a_killed_ablation_goes_on_to_the_same_result(tiles, spec, tmp_path, monkeypatch):
    folder, whole, broken = str(tiles(train=3, test=4)), tmp_path / "whole", tmp_path / "broken"
    asked = {"families": ("top",), "seeds": 1}
    found = ablate(folder, spec, whole, **asked)
    real, done = module.measured, []

    def dying(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(module, "measured", dying)
    with pytest.raises(KeyboardInterrupt):
        ablate(folder, spec, broken, **asked)
    monkeypatch.setattr(module, "measured", real)
    assert not (broken / ABLATION).exists()
    with pytest.raises(RunError):
        ablate(folder, spec, broken, **asked)
    (broken / TRIALS).write_bytes((broken / TRIALS).read_bytes() + b'{"seed": 0, "torn')
    again = ablate(folder, spec, broken, **asked, resume=True)
    for lines in (whole / TRIALS, broken / TRIALS):
        lines.write_text("".join(_timeless(lines)), encoding="utf-8")
    assert (whole / TRIALS).read_bytes() == (broken / TRIALS).read_bytes()
    assert again["recommendation"]["placement"] == found["recommendation"]["placement"]
    with pytest.raises(RunError, match="adapt"):
        adapt(folder, spec, tmp_path / "run")
        ablate(folder, spec, tmp_path / "run", **asked, resume=True)


def _timeless(path):
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        line.pop("seconds", None)
        yield json.dumps(line) + "\n"


def test_every_placement_has_the_budget_and_the_recommended_one_is_taken_by_adapt(tiles, spec, tmp_path):
    folder, out = str(tiles(train=3, test=4)), tmp_path / "ablation"
    found = ablate(folder, spec, out, families=("top", "towers"), seeds=2)
    assert {one["entries"] for one in found["placements"].values()} == {300} == {found["budget"]}
    assert found["recommendation"]["placement"] in found["placements"]
    assert found["default"] in found["placements"] and found["recommendation"]["action"] in ("keep", "move")
    assert {trial["family"] for trial in found["trials"]} == {"top", "towers"}
    for language, word in (("en", "Where the labelled pictures pull at the model"), ("ja", "教師画像がモデルのどこを")):
        page = write_report([out], None, language).read_text(encoding="utf-8")
        assert word in page and "<script" not in page and found["recommendation"]["placement"] in page
    with pytest.raises(RunError, match="each has a page of its own"):
        write_report([out, out], None, "en")
    fields = placement_fields(str(out))
    assert fields == placement_fields(str(out / PLACEMENT)) and fields["budget"] == 300
    taken = build(overlay({**QUICK, "adapter": {}}, {"adapter": fields}))
    evaluation = adapt(folder, taken, tmp_path / "run")
    assert evaluation["adapter"]["entries"] == 300


def test_auto_is_chosen_once_and_kept_with_the_run(tiles, tmp_path):
    folder = str(tiles(train=3, test=4))
    auto = build(overlay({**QUICK, "adapter": {"budget": 300}}, {"adapter": {"placement": "auto"}}))
    evaluation = adapt(folder, auto, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "placement.json").read_text(encoding="utf-8"))
    card = json.loads((tmp_path / "run" / "adapter" / "adapter.json").read_text(encoding="utf-8"))
    assert card["placement"] == kept["placement"] and evaluation["adapter"]["entries"] == 300
    assert {(w["tower"]) for w in kept["energies"]} >= {"vision"}
    fixed = build(overlay({**QUICK, "adapter": {"budget": 300}}, {"adapter": {"placement": kept["placement"]}}))
    adapt(folder, fixed, tmp_path / "fixed")
    weights = [(tmp_path / run / "adapter" / "adapter.safetensors").read_bytes() for run in ("run", "fixed")]
    assert weights[0] == weights[1]


def test_bad_input_is_refused(tiles, spec, tmp_path):
    folder = str(tiles(train=3, test=4))
    with pytest.raises(SpecError, match="sideways: not known"):
        ablate(folder, spec, tmp_path / "a", families=("sideways",))
    with pytest.raises(SpecError, match="an ablation tries it by itself"):
        ablate(folder, build(overlay({**QUICK, "adapter": {}}, {"adapter": {"placement": "auto"}})), tmp_path / "a")
    with pytest.raises(SpecError, match="leave one out"):
        build(overlay(QUICK, {"adapter": {"placement": "vision:6-7"}}))
    with pytest.raises(AdapterError, match="names no tower"):
        adapt(folder, build({**QUICK, "adapter": {"placement": "audio:1"}}), tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
