import io
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from kusabi.data.picture import pixel_digest
from kusabi.data.saved import is_saved, read_hub, read_saved
from kusabi.data.split import few_shot_split
from kusabi.errors import DataError


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(seed, mode="RGB"):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).convert(mode)


def png(seed, **options):
    stream = io.BytesIO()
    picture(seed).save(stream, "PNG", **options)
    return {"bytes": stream.getvalue(), "path": None}


def table(labels, names=("whole", "cracked"), label="label", first=0, **columns):
    features = {
        "image": datasets.Image(),
        label: datasets.ClassLabel(names=list(names)) if names else datasets.Value("string"),
    }
    features |= {name: datasets.Value("string") for name in columns}
    rows = {"image": [png(first + i) for i in range(len(labels))], label: labels, **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def saved(tmp_path, content, name="parts"):
    if isinstance(content, dict):
        content = datasets.DatasetDict(content)
    content.save_to_disk(tmp_path / name)
    return tmp_path / name


def test_splits_class_names_and_groups_are_read(tmp_path):
    place = saved(
        tmp_path,
        {"train": table([0, 1, 1], lot=["x", "y", None]), "test": table([1, 0], first=10, lot=["z", "z"])},
    )
    assert is_saved(place) and not is_saved(tmp_path)
    data = read_saved(place, group_column="lot")
    assert (data.name, data.classes) == ("parts", ("cracked", "whole"))
    assert data.notes == ("1 pictures without a group are each a group of their own: train/2",)
    assert [(e.file, e.label, e.group) for e in data.train] == [
        ("train/0", 1, "x"), ("train/1", 0, "y"), ("train/2", 0, None),
    ]  # fmt: skip
    assert [(e.file, e.label) for e in data.test] == [("test/0", 0), ("test/1", 1)]
    assert data.open(data.train[2]).tobytes() == picture(2).tobytes()
    assert [e.digest for e in data.train] == [pixel_digest(picture(i)) for i in range(3)]


def test_an_empty_group_means_a_picture_of_its_own(tmp_path):
    data = read_saved(saved(tmp_path, table([0, 1, 1, 0], lot=["", " ", None, " x "])), group_column="lot")
    assert [e.group for e in data.train] == [None, None, None, "x"]


def test_a_single_table_is_split_by_us(tmp_path):
    data = read_saved(saved(tmp_path, table(["a", "b"] * 8, names=None)))
    assert data.test == () and data.classes == ("a", "b")
    assert len(few_shot_split(data, 2, 0).query) == 12


def test_pictures_are_opened_by_the_rules_of_this_project(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(stream, "PNG")
    rows = {"image": [png(0, exif=exif), {"bytes": stream.getvalue(), "path": None}], "label": ["a", "b"]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    data = read_saved(saved(tmp_path, datasets.Dataset.from_dict(rows, features=features)))
    assert data.open(data.train[0]).size == (6, 5)
    assert np.asarray(data.open(data.train[1])).tolist() == [[[0] * 3, [255] * 3]]


def test_validation_and_other_splits_follow_the_rules_for_folders(tmp_path):
    splits = {"train": table([0, 1]), "validation": table([1, 0], first=5), "unsupervised": table([0], first=9)}
    data = read_saved(saved(tmp_path, splits))
    assert [e.file for e in data.test] == ["validation/0", "validation/1"]
    assert data.notes == (
        "splits that are not read: unsupervised", "there is no test split: the validation split judges instead",
    )  # fmt: skip


def test_a_split_without_labels_is_left_out_and_rows_without_are_refused(tmp_path):
    data = read_saved(saved(tmp_path, {"train": table([0, 1]), "test": table([-1, -1], first=5)}))
    assert data.test == () and data.notes == ("split test has no labels and is left out",)
    with pytest.raises(DataError, match="rows without a label: train/1, train/2"):
        read_saved(saved(tmp_path, table([0, -1, -1, 1]), "other"))


def test_a_missing_label_column_names_those_that_exist(tmp_path):
    place = saved(tmp_path, table([0, 1], label="kind"))
    with pytest.raises(
        DataError, match=r"parts/train: no column 'label'; it has 'image' \(.*\), 'kind' \(int64\).*--label-column"
    ):
        read_saved(place)
    assert read_saved(place, label_column="kind").classes == ("cracked", "whole")
    with pytest.raises(DataError, match="no column 'lot'"):
        read_saved(place, label_column="kind", group_column="lot")


def test_a_table_without_pictures_or_class_names_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no column of type Image; it has 'text' \(string\)"):
        read_saved(saved(tmp_path, datasets.Dataset.from_dict({"text": ["a"], "label": [0]})))
    with pytest.raises(DataError, match="column 'score' holds no class names"):
        content = table([0, 1]).add_column("score", [0.5, 0.7])
        read_saved(saved(tmp_path, content, "other"), label_column="score")


def test_numbers_and_truth_values_may_be_labels(tmp_path):
    content = table([0, 1]).add_column("size", [7, 12]).add_column("ok", [True, False])
    place = saved(tmp_path, content)
    assert read_saved(place, label_column="size").classes == ("12", "7")
    assert read_saved(place, label_column="ok").classes == ("False", "True")


def test_unreadable_rows_are_all_named_or_skipped(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    bad = [{"bytes": b"bad", "path": None}, None]
    rows = {"image": [png(0), png(1), *bad], "label": ["a", "b", "a", "b"]}
    place = saved(tmp_path, datasets.Dataset.from_dict(rows, features=features))
    with pytest.raises(DataError, match="2 of 4 pictures cannot be read") as refusal:
        read_saved(place)
    assert all(f"{place}/train/{row} (" in str(refusal.value) for row in (2, 3))
    assert len(read_saved(place, skip_unreadable=True).train) == 2


def test_a_stored_output_format_does_not_matter(tmp_path):
    content = table([0, 1])
    content.set_format("numpy", columns=["image"])
    assert [e.label for e in read_saved(saved(tmp_path, content)).train] == [1, 0]


def test_a_damaged_folder_is_refused(tmp_path):
    place = saved(tmp_path, table([0, 1]))
    for file in place.glob("*.arrow"):
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="parts: a saved dataset that cannot be loaded"):
        read_saved(place)


def test_splits_without_one_to_learn_from_are_refused(tmp_path):
    with pytest.raises(DataError, match="no train split; it has test, val"):
        read_saved(saved(tmp_path, {"test": table([0, 1]), "val": table([0, 1], first=5)}))
    with pytest.raises(DataError, match="no train split; it has left, right"):
        read_saved(saved(tmp_path, {"left": table([0, 1]), "right": table([0, 1], first=5)}, "other"))


def test_a_hub_id_is_loaded_by_its_name(monkeypatch):
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: asked.append(name) or datasets.DatasetDict(train=table([0, 1]))
    )
    data = read_hub("owner/parts")
    assert asked == ["owner/parts"] and (data.name, data.place) == ("owner/parts", "owner/parts")


def test_a_hub_id_that_is_not_in_the_cache_is_refused_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match="owner/nothing: there is no such folder, and HF_HUB_OFFLINE is set"):
        read_hub("owner/nothing")


def test_a_hub_that_does_not_answer_is_named_with_its_reason(monkeypatch):
    def unknown(name):
        raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"owner/x: there is no such folder, .*doesn't exist on the Hub\); check"):
        read_hub("owner/x")


def test_torchvision_is_not_needed():
    assert "torchvision" not in sys.modules
