"""Questions to an adapter on disk, of a tiny model."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from kusabi.adapters.checkpoint import load_adapter, save_adapter
from kusabi.data.source import read_dataset
from kusabi.errors import AdapterError, DataError
from kusabi.recipes import stored_adapter as module
from kusabi.recipes.adapt import adapt
from kusabi.recipes.compose import compose
from kusabi.recipes.stored_adapter import LEARNED, evaluate_stored, open_adapter, predict
from kusabi.spec_file import build, read_spec
from kusabi.training.views import BLOCK

QUICK = {
    "data": {"views": 1, "shots": 2},
    "adapter": {"layers": "last-1", "budget": 50, "support_rule": "random"},
    "training": {"steps": 1},
}


@pytest.fixture
def run(tiny, tiles, tmp_path):
    folder = tiles(train=6, test=0)
    adapt(str(folder), build({**QUICK, "backbone": {"backbone": str(tiny("clip"))}}), tmp_path / "run")
    return tmp_path / "run", folder


def test_a_local_copy_answers_for_an_adapter_that_was_made_on_the_hub(run, tiny, tmp_path):
    adapter = load_adapter(run[0] / "adapter")
    card = {**adapter.card, "backbone": {**adapter.card["backbone"], "source": "owner/clip", "revision": "0123abc"}}
    save_adapter(tmp_path / "carried", replace(adapter, card=card))
    opened = open_adapter(tmp_path / "carried", backbone=str(tiny("clip")))
    del card["spec"]
    save_adapter(tmp_path / "first", replace(adapter, card=card))
    assert open_adapter(tmp_path / "first", backbone=str(tiny("clip"))).revision is None
    assert opened.backbone.digest == card["backbone"]["digest"] and opened.revision is None
    with pytest.raises(AdapterError, match="another backbone"):
        open_adapter(tmp_path / "carried", backbone=str(tiny("siglip")))


def test_an_adapter_of_old_which_names_no_pictures_knows_the_folder_it_was_made_from(run, tiles, tiny, tmp_path):
    adapter, model = load_adapter(run[0] / "adapter"), str(tiny("clip"))
    data = {key: told for key, told in adapter.card["data"].items() if key != "learned"}
    save_adapter(tmp_path / "old", replace(adapter, card={**adapter.card, "data": data}))
    assert LEARNED in evaluate_stored(tmp_path / "old", str(run[1]), backbone=model)["task"]["notes"]
    shutil.rmtree(run[1])
    fewer = str(tiles(train=5, test=0))
    assert LEARNED not in evaluate_stored(tmp_path / "old", fewer, backbone=model)["task"]["notes"]
    assert LEARNED in evaluate_stored(run[0], fewer)["task"]["notes"]


def test_new_pictures_of_one_class_are_judged_among_all(run, tiles):
    for name in ("A1", "C3"):
        shutil.rmtree(run[1] / name)
    found = evaluate_stored(run[0], str(run[1]))
    assert found["task"]["classes"] == load_adapter(run[0] / "adapter").card["classes"]
    assert found["adapted"]["n"] == 6


def test_a_single_picture_that_was_learned_from_is_told_among_others_and_in_a_composed_adapter(run, tiles, tmp_path):
    learned = set(load_adapter(run[0] / "adapter").card["data"]["learned"])
    data = read_dataset(str(run[1]))
    (known, *_), (strange, *_) = (
        [one.file for one in data.train if (one.digest[:12] in learned) is side] for side in (True, False)
    )
    (folder := tmp_path / "others" / Path(strange).parent).mkdir(parents=True)
    shutil.copy(run[1] / strange, folder)
    assert LEARNED not in evaluate_stored(run[0], str(tmp_path / "others"))["task"]["notes"]
    (folder := tmp_path / "others" / Path(known).parent).mkdir(parents=True, exist_ok=True)
    shutil.copy(run[1] / known, folder)
    found = evaluate_stored(run[0], str(tmp_path / "others"))
    assert LEARNED in found["task"]["notes"] and "learned" not in found["task"]["learned_from"]
    compose([run[0]], tmp_path / "composed")
    spec = read_spec(run[0] / "spec.toml")
    found = evaluate_stored(tmp_path / "composed", str(tmp_path / "others"), backbone=spec.backbone.backbone)
    assert LEARNED in found["task"]["notes"]


def test_copies_judge_once_and_pictures_under_two_labels_not_at_all(run):
    before = evaluate_stored(run[0], str(run[1]))
    first, other = (sorted((run[1] / name).glob("*.png")) for name in ("A1", "B2"))
    for number in range(5):
        shutil.copy(first[0], run[1] / "A1" / f"copy-{number}.png")
    found = evaluate_stored(run[0], str(run[1]))
    assert found["difference"] == before["difference"] and any("copies" in note for note in found["task"]["notes"])
    shutil.copy(first[1], run[1] / "B2" / "wrong.png")
    found = evaluate_stored(run[0], str(run[1]))
    assert found["adapted"]["n"] == before["adapted"]["n"] - 1
    assert any("two labels" in note and "wrong.png" in note for note in found["task"]["notes"])
    for path in other:
        path.unlink()
    shutil.rmtree(run[1] / "C3")
    for path in first:
        shutil.copy(path, run[1] / "B2")
    with pytest.raises(DataError, match="no picture is left to judge"):
        evaluate_stored(run[0], str(run[1]))


def test_intervals_of_given_groups_count_them_and_their_names_stay_secret(run):
    plain = evaluate_stored(run[0], str(run[1]))
    files = sorted(str(path.relative_to(run[1])) for path in run[1].rglob("*.png"))
    rows = [f"{file},{Path(file).parent.name},patient-{file[-5]}" for file in files]
    (run[1] / "metadata.csv").write_text("\n".join(["file_name,label,patient", *rows]))
    found = evaluate_stored(run[0], str(run[1]), group_column="patient")
    assert found["task"]["query_groups"] == 6 and found["task"]["intervals_by"] == "groups"
    assert found["adapted"]["accuracy"] == plain["adapted"]["accuracy"]
    assert found["adapted"]["interval"] != plain["adapted"]["interval"]
    names = [picture["group"] for picture in found["pictures"]]
    assert len(set(names)) == 6 and "patient-" not in json.dumps(found)
    again = evaluate_stored(run[0], str(run[1]), group_column="patient")
    assert [picture["group"] for picture in again["pictures"]] == names


def test_few_pictures_are_in_memory_at_a_time(run, monkeypatch):
    real, alive, most = module.open_picture, set(), []

    def counted(path):
        picture = real(path)
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        most.append(len(alive))
        return picture

    monkeypatch.setattr(module, "open_picture", counted)
    picture = next(run[1].rglob("*.png"))
    gc.collect()
    assert len(predict(run[0], [picture] * (6 * BLOCK))) == len(most) == 6 * BLOCK
    assert max(most) <= 3 * BLOCK


def test_every_unreadable_picture_is_named_and_none_is_answered(run, tmp_path):
    good, bad = next(run[1].rglob("*.png")), [tmp_path / "torn.png", tmp_path / "gone.png"]
    bad[0].write_bytes(good.read_bytes()[:40])
    with pytest.raises(DataError, match=r"torn\.png.*gone\.png"):
        predict(run[0], [good, bad[0], *[good] * (2 * BLOCK), bad[1]])
