import hashlib
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import BackboneError, RunError, SpecError
from kusabi.evaluation.stored import COMPARISON, read_comparison
from kusabi.recipes import candidate as one
from kusabi.recipes import candidates as module
from kusabi.recipes import tower_speed
from kusabi.recipes.adapt import adapt
from kusabi.recipes.baseline import baseline
from kusabi.recipes.candidates import compare_candidates
from kusabi.recipes.candidates_folder import CANDIDATES, CandidatesAsked
from kusabi.recipes.run_folder import ENVIRONMENT
from kusabi.spec_file import build, overlay

GOLDEN = Path(__file__).parents[1] / "golden" / "comparison-1" / COMPARISON
QUICK = {
    "data": {"views": 2, "shots": 4},
    "adapter": {"layers": "last-1", "budget": 200},
    "training": {"steps": 3, "batch_size": 4},
}
WAYS = ("zero_shot", "class_mean", "linear_probe", "adapted")


@pytest.fixture
def spec():
    return build(QUICK)


@pytest.fixture
def models(tiny, tmp_path):
    """Names -> folders of two models, of one without safetensors, and of one without tokenizer."""
    folders = {}
    for kind in ("clip", "siglip"):
        folders[kind] = shutil.copytree(tiny(kind), tmp_path / "models" / kind)
    (folders["siglip"] / "README.md").write_text("---\nlicense: mit\n---\n")
    folders["pickled"] = shutil.copytree(tiny("clip"), tmp_path / "models" / "pickled")
    (folders["pickled"] / "model.safetensors").rename(folders["pickled"] / "pytorch_model.bin")
    folders["mute"] = shutil.copytree(tiny("clip"), tmp_path / "models" / "mute")
    for path in folders["mute"].glob("token*"):
        path.unlink()
    return {name: str(folder) for name, folder in folders.items()}


def asked(models, *names, adapter=True):
    return CandidatesAsked(tuple(models.get(name, name) for name in names), adapter)


def untimed(row):
    return {key: value for key, value in row.items() if key not in ("speed", "seconds")}


def shape(value):
    """Keys and kinds of plain data, whatever the values; lists by the kinds that they hold."""
    if isinstance(value, dict):
        return {key: shape(content) for key, content in value.items()}
    if isinstance(value, list):
        kinds = []
        for kind in map(shape, value):
            if kind not in kinds:
                kinds.append(kind)
        return kinds
    if isinstance(value, str):
        return "text"
    return "number" if type(value) in (int, float) else type(value).__name__


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def test_the_order_of_candidates_changes_no_row_and_no_advice(tiles, spec, models):
    folder = str(tiles(train=4, test=4))
    there = compare_candidates(folder, spec, asked(models, "clip", "siglip"))
    back = compare_candidates(folder, spec, asked(models, "siglip", "clip"))
    assert [row["name"] for row in there["candidates"]] == ["clip", "siglip"]
    assert list(map(untimed, there["candidates"])) == list(map(untimed, reversed(back["candidates"])))
    for key in ("best", "against", "level", "smallest", "action"):
        assert there["recommendation"][key] == back["recommendation"][key]
    assert there["task"] == back["task"] and there["pictures"] == back["pictures"]


def test_a_row_says_what_adapt_says_of_the_same_model(tiles, spec, models, tmp_path):
    folder = str(tiles(train=4, test=4))
    row = compare_candidates(folder, spec, asked(models, "clip", "siglip"))["candidates"][1]
    alone = adapt(folder, build(overlay(QUICK, {"backbone": {"backbone": models["siglip"]}})), tmp_path / "run")
    for key in (*WAYS, "difference", "against_peers", "best_peer", "backbone"):
        assert row[key] == alone[key]
    assert row["adapter"]["entries"] == alone["adapter"]["entries"] == 200
    for way in WAYS:
        hits = "".join("1" if picture[way] == picture["label"] else "0" for picture in alone["pictures"])
        assert row["right"][way] == hits
    assert row["licence"] == {"name": "mit", "where": "README.md", "note": None}
    assert row["weight_bytes"] == (Path(models["siglip"]) / "model.safetensors").stat().st_size


def test_a_folder_too_small_to_hold_anything_out_is_cross_validated_as_in_adapt(tiles, spec, models, tmp_path):
    folder = str(tiles(train=4, test=0))
    row = compare_candidates(folder, spec, asked(models, "clip", "siglip"))["candidates"][0]
    alone = adapt(folder, build(overlay(QUICK, {"backbone": {"backbone": models["clip"]}})), tmp_path / "run")
    assert alone["cross_validated"] and {way: row[way] for way in WAYS} == {way: alone[way] for way in WAYS}


def test_without_adapters_a_row_says_what_baseline_says(tiles, spec, models):
    folder = str(tiles(train=4, test=4))
    found = compare_candidates(folder, spec, asked(models, "clip", "siglip", adapter=False))
    alone = baseline(folder, build(overlay(QUICK, {"backbone": {"backbone": models["clip"]}})))
    row = found["candidates"][0]
    assert {way: row[way] for way in WAYS[:-1]} == {way: alone[way] for way in WAYS[:-1]}
    assert found["judged_by"] == "linear_probe" and "adapted" not in row and row["seconds"]["adapt"] is None
    assert row["adapter"] is None and row["training"] is None


def test_a_candidate_that_fails_costs_the_others_nothing(tiles, spec, models):
    folder = str(tiles(train=4, test=4))
    found = compare_candidates(folder, spec, asked(models, "pickled", "clip", "mute", "nowhere", "siglip"))
    rows = {Path(row["asked"]).name: row for row in found["candidates"]}
    assert "refused" in rows["pickled"]["error"] and "tokenizer" in rows["mute"]["error"]
    assert "nowhere" in rows["nowhere"]["error"] and rows["nowhere"].keys() == {"asked", "error", "name"}
    alone = compare_candidates(folder, spec, asked(models, "clip", "siglip"))
    assert [untimed(rows[name]) for name in ("clip", "siglip")] == list(map(untimed, alone["candidates"]))
    assert set(found["recommendation"]["against"]) | {found["recommendation"]["best"]} == {"clip", "siglip"}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory\nlong story"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_too_little_memory_for_one_is_a_row_too(tiles, spec, models, monkeypatch, error):
    real = module.candidate

    def small(dataset, spec, device, **asked):
        if spec.backbone.backbone == models["clip"]:
            raise error
        return real(dataset, spec, device, **asked)

    monkeypatch.setattr(module, "candidate", small)
    row = compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "clip", "siglip"))["candidates"][0]
    assert f"too large for the memory of cpu ({str(error).splitlines()[0]})" in row["error"]


def test_where_all_fail_all_reasons_are_told_and_nothing_looks_finished(tiles, spec, models, tmp_path):
    with pytest.raises(BackboneError, match=r"none of 2 candidates.*refused.*nowhere"):
        compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "pickled", "nowhere"), tmp_path / "out")
    assert not (tmp_path / "out" / COMPARISON).exists()


def test_models_stay_as_they_are_and_one_is_in_memory_at_a_time(tiles, spec, models, monkeypatch):
    loaded, digests, real = [], [], one.open_backbone

    def spying(spec, device):
        assert all(reference() is None for reference in loaded), "the model before is still in memory"
        backbone = real(spec, device)
        loaded.append(weakref.ref(backbone.module))
        return backbone

    monkeypatch.setattr(one, "open_backbone", spying)
    monkeypatch.setattr(one, "module_digest", lambda m, real=one.module_digest: digests.append(real(m)) or digests[-1])
    before = {name: contents(models[name]) for name in ("clip", "siglip")}
    compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "clip", "pickled", "siglip"))
    assert len(loaded) == 2 and digests[0] == digests[1] != digests[2] == digests[3]
    assert before == {name: contents(models[name]) for name in before}


def test_a_backbone_that_changed_is_noticed(tiles, spec, models, monkeypatch):
    real = one.judge_one

    def careless(question, *rest):
        answers = real(question, *rest)
        next(question.backbone.module.parameters()).data.view(-1)[0] += 1
        return answers

    monkeypatch.setattr(one, "judge_one", careless)
    with pytest.raises(AssertionError, match="frozen backbone"):
        compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "clip", "siglip"))


def test_a_killed_comparison_goes_on_with_what_is_missing(tiles, spec, models, tmp_path, monkeypatch):
    folder, out, real, took = str(tiles(train=4, test=4)), tmp_path / "out", module.candidate, []

    def dying(dataset, spec, device, **asked):
        took.append(Path(spec.backbone.backbone).name)
        if len(took) == 2:
            raise KeyboardInterrupt
        return real(dataset, spec, device, **asked)

    monkeypatch.setattr(module, "candidate", dying)
    names = asked(models, "clip", "siglip", "pickled")
    with pytest.raises(KeyboardInterrupt):
        compare_candidates(folder, spec, names, out)
    first = (out / CANDIDATES).read_text(encoding="utf-8").splitlines()
    assert len(first) == 1 and not (out / COMPARISON).exists()
    with pytest.raises(RunError, match="--resume"):
        compare_candidates(folder, spec, names, out)
    found = compare_candidates(folder, spec, names, out, resume=True)
    assert took == ["clip", "siglip", "siglip", "pickled"] and found == read_comparison(out)
    assert (out / CANDIDATES).read_text(encoding="utf-8").splitlines()[0] == first[0]

    (Path(models["pickled"]) / "pytorch_model.bin").rename(Path(models["pickled"]) / "model.safetensors")
    mended = compare_candidates(folder, spec, names, out, resume=True)
    assert took[4:] == ["pickled"] and mended["candidates"][2]["error"] is None
    again = (out / COMPARISON).read_bytes()
    assert compare_candidates(folder, spec, names, out, resume=True) == mended
    assert took[5:] == [] and (out / COMPARISON).read_bytes() == again
    with pytest.raises(RunError, match="adapter is True there, False here"):
        compare_candidates(folder, spec, CandidatesAsked(names.backbones, False), out, resume=True)
    with pytest.raises(RunError):
        adapt(folder, spec, out)


@pytest.mark.parametrize("finished", [True, False])
def test_a_comparison_of_other_weights_or_pictures_is_not_taken_up(tiles, spec, models, tmp_path, finished):
    pictures, out, names = tiles(train=4, test=4), tmp_path / "out", asked(models, "clip", "siglip")
    compare_candidates(str(pictures), spec, names, out)
    if not finished:
        (out / COMPARISON).unlink()
    kept, weights = contents(out), Path(models["clip"]) / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(RunError, match=r"the weights of .*clip \(digest .* have changed"):
        compare_candidates(str(pictures), spec, names, out, resume=True)
    weights.write_bytes(before)
    extra = next(path for path in pictures.rglob("*.png"))
    shutil.copy(extra, extra.with_name("one_more.png"))
    with pytest.raises(RunError, match="the pictures have changed"):
        compare_candidates(str(pictures), spec, names, out, resume=True)
    extra.with_name("one_more.png").unlink()
    assert contents(out) == kept
    shutil.rmtree(models["clip"])
    if finished:
        assert compare_candidates(str(pictures), spec, names, out, resume=True) == read_comparison(out)


def test_what_cannot_be_asked_is_refused_before_anything_is_written(tiles, spec, models, tmp_path):
    with pytest.raises(SpecError, match="named more than once"):
        asked(models, "clip", "clip")
    pinned = build(overlay(QUICK, {"backbone": {"revision": "main"}}))
    with pytest.raises(SpecError, match="--revision"):
        compare_candidates(str(tiles(train=4, test=4)), pinned, asked(models, "clip", "siglip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_are_told_apart(tiles, spec, models, tmp_path):
    other = shutil.copytree(models["siglip"], tmp_path / "other" / "clip")
    found = compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "clip", str(other)))
    assert [row["name"] for row in found["candidates"]] == [models["clip"], str(other)]


def test_speed_is_the_median_of_batches_after_a_warm_up(tiles, spec, models):
    row = compare_candidates(str(tiles(train=4, test=4)), spec, asked(models, "clip", "siglip"))["candidates"][0]
    speed = row["speed"]
    assert 0 < speed["lowest"] <= speed["pictures_per_second"] <= speed["highest"]
    assert (speed["batch"], speed["repeats"], speed["warm_up"], speed["input_size"]) == (16, 7, 2, 24)
    assert row["seconds"]["load"] > 0 and row["seconds"]["adapt"] > 0


def test_the_first_batches_only_warm_up(tiny, monkeypatch):
    seconds = iter([160.0, 80.0, 1.0, 2.0, 4.0, 8.0, 16.0, 4.0, 4.0])
    monkeypatch.setattr(tower_speed, "_seconds", lambda backbone, batch: next(seconds))
    speed = tower_speed.tower_speed(load_backbone(tiny("clip")), [Image.new("RGB", (30, 20))])
    assert (speed["lowest"], speed["pictures_per_second"], speed["highest"]) == (1.0, 4.0, 16.0)
    assert next(seconds, None) is None


def test_a_comparison_has_the_shape_of_the_golden_one(tiles, spec, models, tmp_path):
    folder = str(tiles(train=4, test=4))
    found = compare_candidates(folder, spec, asked(models, "clip", "siglip", "pickled"), tmp_path / "out")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for content in (found, golden):
        content["recommendation"]["against"] = list(content["recommendation"]["against"].values())
        content["recommendation"]["faster"] = []
    assert shape(found) == shape(golden)
    given = json.loads((tmp_path / "out" / ENVIRONMENT).read_text(encoding="utf-8"))
    assert given["comparison"] == found["asked"]
