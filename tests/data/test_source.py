import subprocess
import sys

import datasets
import pytest

from kusabi.data import source
from kusabi.data.source import read_dataset
from kusabi.errors import DataError


@pytest.fixture
def asked(monkeypatch):
    """Hub ids that were asked for; nothing is fetched."""
    names = []
    monkeypatch.setattr(source, "read_hub", lambda name, **options: names.append(name))
    return names


def test_a_folder_of_pictures_is_read(folder, asked):
    root = folder("a/1.png", "b/2.png")
    assert read_dataset(root) == read_dataset(str(root)) == read_dataset(f"{root}/")
    assert read_dataset(root).name == "tiles" and asked == []


def test_options_are_passed_on(folder):
    root = folder("p/1.png", "p/2.png", "p/3.png")
    (root / "metadata.csv").write_text("file_name,kind,lot\np/1.png,a,x\np/2.png,b,y\np/3.png,b,y\n")
    (root / "p" / "3.png").write_bytes(b"")
    seen = []
    data = read_dataset(
        root, label_column="kind", group_column="lot", skip_unreadable=True, progress=lambda *at: seen.append(at)
    )
    assert [(e.file, e.group) for e in data.train] == [("p/1.png", "x"), ("p/2.png", "y")]
    assert seen[-1] == (3, 3)


def test_one_class_is_enough_where_that_is_asked_for(folder, tmp_path):
    root = folder("a/1.png", "a/2.png")
    assert read_dataset(root, least_classes=1).classes == ("a",)
    with pytest.raises(DataError, match="only one class, 'a'; at least two classes are needed"):
        read_dataset(root)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no labelled picture to learn from; at least one class is needed"):
        read_dataset(tmp_path / "void", least_classes=1)
    with pytest.raises(DataError, match="only 2 classes, 'a', 'b'; at least 3 classes are needed"):
        read_dataset(folder("b/3.png"), least_classes=3)


def test_a_folder_that_save_to_disk_wrote_is_read(tmp_path, folder):
    root = folder("a/1.png", "b/2.png")
    rows = {"image": [str(root / "a" / "1.png"), str(root / "b" / "2.png")], "label": ["a", "b"]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    datasets.enable_progress_bars()
    data = read_dataset(tmp_path / "saved")
    assert [e.file for e in data.train] == ["train/0", "train/1"]
    assert [e.digest for e in data.train] == [e.digest for e in read_dataset(root).train]
    with pytest.raises(DataError, match="at least 3 classes"):
        read_dataset(tmp_path / "saved", least_classes=3)


def test_a_hub_id_is_asked_for_only_where_no_such_folder_exists(folder, asked, monkeypatch, tmp_path):
    folder("a/1.png", "b/2.png", root="owner/name")
    monkeypatch.chdir(tmp_path)
    assert read_dataset("owner/name").classes == ("a", "b") and asked == []
    read_dataset("owner/other-name_1.0")
    assert asked == ["owner/other-name_1.0"]


@pytest.mark.parametrize(
    "name", ["nowhere", "a/b/c", "./a/b", "/a/b", "../a", "~nobody/x", "a/.b", "a b/c", "傷/タイル"]
)
def test_other_texts_that_are_no_folder_are_refused_by_name(name, asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such folder") as refusal:
        read_dataset(name)
    assert name.removeprefix("./") in str(refusal.value) and asked == []


def test_a_name_that_the_system_cannot_look_up_is_refused():
    with pytest.raises(DataError, match="x: File name too long; give a shorter name"):
        read_dataset("x" * 300)


def test_an_empty_name_is_refused():
    with pytest.raises(DataError, match="the name of the folder is empty"):
        read_dataset(" ")


def test_reading_a_folder_needs_neither_torch_nor_datasets(folder):
    root = folder("a/1.png", "b/2.png")
    code = (
        "import sys; from kusabi.data.source import read_dataset; import kusabi.data.split, kusabi.data.augmentation, "
        f"kusabi.data.prompts; read_dataset({str(root)!r}); "
        "print(sorted({'torch', 'datasets', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
