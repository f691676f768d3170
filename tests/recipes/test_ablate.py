import json
from collections import Counter

import numpy as np
import pytest

from kusabi.data.source import read_dataset
from kusabi.data.split import Folds, few_shot_split
from kusabi.errors import AdapterError, RunError, SpecError
from kusabi.evaluation.placement import recommend
from kusabi.evaluation.stored import ABLATION
from kusabi.recipes import ablate as module
from kusabi.recipes import tables
from kusabi.recipes.ablate import TRIALS, ablate
from kusabi.recipes.adapt import adapt
from kusabi.recipes.candidates import compare_candidates
from kusabi.recipes.candidates_folder import CandidatesAsked
from kusabi.recipes.curve import curve
from kusabi.report.written import write_report
from kusabi.spec_file import PLACEMENT, build, overlay, placement_fields
from kusabi.training import depth_choice

QUICK = {
    "backbone": {"input_size": 28},
    "data": {"views": 1, "shots": 2},
    "adapter": {"layers": "last-2", "budget": 300},
    "training": {"steps": 2, "batch_size": 4},
}


@pytest.fixture
def spec():
    return build(QUICK)


@pytest.mark.parametrize("verb", ["ablate", "curve", "baseline"])
def test_adapters_beside_are_refused_where_they_would_count_for_nothing(tiles, tmp_path, verb):
    folder, out = str(tiles(train=3, test=4)), tmp_path / "out"
    spec = build(overlay(QUICK, {"adapter": {"beside": ("other",)}}))
    tried = {
        "ablate": lambda: ablate(folder, spec, out),
        "curve": lambda: curve(folder, spec, out),
        "baseline": lambda: compare_candidates(folder, spec, CandidatesAsked(("mini", "other")), out),
    }
    with pytest.raises(SpecError, match=f"--beside: {verb} tries each adapter alone"):
        tried[verb]()
    assert not out.exists()


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


def test_an_open_depth_is_settled_once_and_kept_with_the_run(tiles, tmp_path, monkeypatch):
    folder = str(tiles(train=3, test=4))
    spec = build(QUICK | {"adapter": {"budget": 300}})
    weights = {}
    monkeypatch.setattr(depth_choice, "FEWEST", 2)
    for name, share in (("deep", 0.2), ("upper", 0.3)):
        monkeypatch.setattr(depth_choice, "upper_share", lambda *_, share=share: share)
        evaluation = adapt(folder, spec, tmp_path / name)
        kept = json.loads((tmp_path / name / "placement.json").read_text(encoding="utf-8"))
        assert kept["upper_share"] == share
        assert evaluation["adapter"]["entries"] == 300
        weights[name] = (tmp_path / name / "adapter" / "adapter.safetensors").read_bytes()
        layers = {"deep": "all", "upper": "upper-half"}[name]
        fixed = build(QUICK | {"adapter": {"budget": 300, "layers": layers}})
        adapt(folder, fixed, tmp_path / f"{name}-fixed")
        assert not (tmp_path / f"{name}-fixed" / "placement.json").exists()
        assert (tmp_path / f"{name}-fixed" / "adapter" / "adapter.safetensors").read_bytes() == weights[name]
    assert weights["deep"] != weights["upper"]
    # A run that goes on does not look again: what it found is what it trains.
    (tmp_path / "deep" / "evaluation.json").unlink()
    monkeypatch.setattr(depth_choice, "upper_share", lambda *_: pytest.fail("looked again"))
    adapt(folder, spec, tmp_path / "deep", resume=True)
    assert (tmp_path / "deep" / "adapter" / "adapter.safetensors").read_bytes() == weights["deep"]


def test_the_placement_to_compare_with_is_what_adapt_would_settle_on(tiles, small, tmp_path, monkeypatch):
    folder = str(tiles(train=3, test=4))
    spec = build(small.model_dump() | {"adapter": {"budget": 300}})
    monkeypatch.setattr(depth_choice, "FEWEST", 2)
    monkeypatch.setattr(depth_choice, "upper_share", lambda *_: 0.2)
    monkeypatch.setattr(module, "measured", _unmeasured)
    found = ablate(folder, spec, tmp_path / "ablation", families=("projections",), seeds=2)
    kept = json.loads((tmp_path / "ablation" / "placement.json").read_text(encoding="utf-8"))
    assert kept["upper_share"] == 0.2 and found["default"] == "vision:0-2:*" and found["budget"] == 300
    assert all(trial["placement"].startswith("vision:0-2:") for trial in found["trials"])


def _unmeasured(setting, side):
    right = "1" * len(side.query.labels)
    return {
        "entries": 300, "layers_backward": 1, "accuracy": 1.0, "log_loss": 0.1, "seconds": 1.0, "right": right,
        "support_loss": 0.1, "support_losses": [0.1] * len(side.support.first().labels),
    }  # fmt: skip


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


@pytest.fixture
def small(tiny):
    """A model of three vision and two text layers, whose ablation is quick."""
    return build(overlay(QUICK, {"backbone": {"backbone": str(tiny("clip")), "input_size": None}}))


@pytest.fixture
def luck(monkeypatch):
    """In place of trainings: placements that differ by luck alone, the same luck in losses and in answers."""

    def drawn(setting, side):
        random = np.random.default_rng([*setting.spec.adapter.placement.encode(), setting.spec.seed])
        pictures = [len(views.first().labels) for views in (side.support, side.query or side.support)]
        losses = random.random(pictures[0])
        right = losses < 0.5 if side.query is None else random.random(pictures[1]) < 0.5
        return {
            "entries": 300, "layers_backward": 1, "accuracy": float(right.mean()), "log_loss": 0.7, "seconds": 1.0,
            "right": "".join("01"[int(hit)] for hit in right), "support_loss": float(losses.mean()),
            "support_losses": losses.tolist(),
        }  # fmt: skip

    monkeypatch.setattr(module, "measured", drawn)


def lines_of(out):
    lines = {}
    for line in map(json.loads, (out / TRIALS).read_text(encoding="utf-8").splitlines()):
        if line["placement"] != "auto":
            lines.setdefault(line["placement"], []).append(line)
    return lines


@pytest.mark.usefixtures("luck")
def test_without_a_test_split_no_picture_chooses_the_placement_that_answers_it(
    tiles, small, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("kusabi.evaluation.placement.CHANCE", 6.0)  # easily moved: parts shall choose differently
    folder, out = str(tiles(train=5, test=0)), tmp_path / "out"
    spec = build(overlay(small.model_dump(), {"data": {"shots": 4}}))
    found = ablate(folder, spec, out, seeds=2)
    lines, pictures = lines_of(out), read_dataset(folder)
    splits = {seed: few_shot_split(pictures, 4, seed) for seed in (0, 1)}
    chosen, gains = Counter(), []
    for seed, split in splits.items():
        assert isinstance(split, Folds)
        gain = 0
        for fold in split.folds:
            judged = {example.file for example in fold.query}
            others = [example.file not in judged for one in splits.values() for example in one.support]
            taken = recommend(lines, found["default"], np.array(others))["placement"]
            for i, example in enumerate(split.support):
                if example.file in judged:
                    chosen[taken] += 1
                    gain += int(lines[taken][seed]["right"][i]) - int(lines[found["default"]][seed]["right"][i])
        gains.append(gain / len(split.support))
    advice = found["recommendation"]
    assert advice["chosen_anew"] == chosen and sum(chosen.values()) == 24 and len(chosen) > 1
    assert advice["difference"]["value"] == pytest.approx(np.mean(gains))
    told = f"{chosen[advice['placement']]} of 24 answers"
    for language, say in (("en", (told, "flattered")), ("ja", ("24件の回答", "高めに出ます"))):
        page = write_report([out], None, language).read_text(encoding="utf-8")
        assert all(text in page for text in say)
        assert not any(text in page for text in ("had no say", "chooses nothing", "選択に使っていない"))
    tables.ablation(found, str(out))
    assert told in (shown := capsys.readouterr().out) and "on query pictures" not in shown


@pytest.mark.usefixtures("luck")
def test_judged_pictures_that_choose_in_another_draw_are_kept_apart(tiles, small, tmp_path, capsys):
    folder = str(tiles(train=8, test=0))
    one, two = (ablate(folder, small, tmp_path / str(n), families=("in",), seeds=n) for n in (1, 2))
    assert one["task"]["held_out"] == "rest of the folder" and one["recommendation"]["chosen_anew"] is None
    assert sum(two["recommendation"]["chosen_anew"].values()) == 2 * 18
    best = one["recommendation"]
    assert best["difference"] == one["placements"][best["placement"]]["difference"]
    tables.ablation(one, "out")
    assert "on query pictures" in capsys.readouterr().out


def test_a_finished_ablation_is_handed_out_again_for_the_same_pictures_alone(tiles, small, tmp_path, monkeypatch):
    folder, asked = tiles(train=3, test=0), {"families": ("projections",), "seeds": 1}
    found = ablate(str(folder), small, tmp_path / "out", **asked)
    monkeypatch.setattr(module, "pose", lambda *_, **__: pytest.fail("nothing is to be measured"))
    assert ablate(str(folder), small, tmp_path / "out", **asked, resume=True) == found
    tiles(train=4, test=0)
    with pytest.raises(RunError, match="the pictures have changed since this run began"):
        ablate(str(folder), small, tmp_path / "out", **asked, resume=True)


@pytest.mark.usefixtures("luck")
def test_a_classifier_without_class_names_is_named_beside_the_zeros_of_the_text_tower(tiles, small, tmp_path, capsys):
    folder = str(tiles(train=3, test=4))
    for blend, without in ((1.0, 2), (0.5, 0)):
        spec, out = build(overlay(small.model_dump(), {"adapter": {"blend": blend}})), tmp_path / str(blend)
        found = ablate(folder, spec, out, families=("towers",), seeds=2)
        weights = [weight["energy"] for weight in found["predictor"]["weights"] if weight["tower"] == "text"]
        assert found["predictor"]["seeds_without_text"] == without and any(weights) == (not without)
        tables.ablation(found, str(out))
        assert ("in 2 of 2 draws the classifier" in capsys.readouterr().out) == bool(without)
        for language, say in (("en", "no class name counted"), ("ja", "クラス名が使われなかった")):
            page = write_report([out], None, language).read_text(encoding="utf-8")
            assert (say in page) == bool(without)
