import os
import unicodedata
from pathlib import Path

import pytest

from kusabi.data import folder as folders
from kusabi.data.folder import read_folder
from kusabi.data.listing import Listed
from kusabi.errors import DataError


def files(examples):
    return [(example.file, example.label) for example in examples]


def test_sub_folders_are_classes_in_the_order_of_their_names(folder):
    root = folder("b/1.png", "b/deep/er/2.png", "a10/3.png", "a2/4.png")
    data = read_folder(root)
    assert (data.name, data.place, data.classes) == ("tiles", str(root), ("a10", "a2", "b"))
    assert files(data.train) == [("a10/3.png", 0), ("a2/4.png", 1), ("b/1.png", 2), ("b/deep/er/2.png", 2)]
    assert data.test == () and data.notes == ()
    assert len({example.digest for example in data.train}) == 4
    assert data.open(data.train[3]).size == (4, 5)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("training", "eval"), ("Train", "TEST")])
def test_splits_are_read_as_such(folder, train, test):
    data = read_folder(folder(f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/a/3.png", f"{test}/b/4.png"))
    assert files(data.train) == [(f"{train}/a/1.png", 0), (f"{train}/b/2.png", 1)]
    assert files(data.test) == [(f"{test}/a/3.png", 0), (f"{test}/b/4.png", 1)]
    assert data.notes == ()


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev"])
def test_without_a_test_split_the_validation_split_judges(folder, name):
    data = read_folder(folder("train/a/1.png", "train/b/2.png", f"{name}/a/3.png", f"{name}/b/4.png"))
    assert [example.file for example in data.test] == [f"{name}/a/3.png", f"{name}/b/4.png"]
    assert data.notes == ("there is no test split: the validation split judges instead",)


def test_with_a_test_split_validation_pictures_join_the_training_side(folder):
    data = read_folder(folder("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/a/4.png", "test/b/5.png"))
    assert [example.file for example in data.train] == ["train/a/1.png", "train/b/2.png", "val/a/3.png"]
    assert data.notes == ("the 1 validation pictures join the training side; the test split judges",)


def test_classes_may_be_called_train_and_test(folder):
    assert read_folder(folder("train/1.png", "car/2.png", "plane/3.png")).classes == ("car", "plane", "train")


def test_folders_beside_the_splits_are_noted(folder):
    data = read_folder(folder("train/a/1.png", "train/b/2.png", "old/c/3.png"))
    assert data.classes == ("a", "b") and data.notes == ("folders beside the splits are not read: old",)


def test_a_test_folder_without_class_folders_has_no_labels_and_is_noted(folder):
    data = read_folder(folder("train/a/1.png", "train/b/2.png", "test/3.png", "test/4.png"))
    assert data.test == ()
    assert data.notes == (
        "2 pictures are left out, since without class folders they have no labels: test/3.png, test/4.png",
    )


def test_hidden_files_other_files_and_stray_pictures_are_left_out(folder):
    root = folder("a/1.png", "b/2.png", "a/.3.png", ".cache/4.png", "__MACOSX/5.png", "6.png", "b/.thumbs/7.png")
    (root / "a" / "notes.TXT").write_text("x")
    (root / "b" / "Thumbs.db").write_text("x")
    data = read_folder(root)
    assert [example.file for example in data.train] == ["a/1.png", "b/2.png"]
    assert data.notes == (
        "1 pictures are left out, since they lie outside of the class folders: 6.png",
        "files that are no pictures are left out: 1 .db, 1 .txt",
    )


def test_suffixes_in_capitals_count(folder):
    assert len(read_folder(folder("a/1.PNG", "b/2.Jpg", "b/3.JPEG")).train) == 3


def test_links_are_followed_and_loops_end(tmp_path, folder):
    elsewhere = folder("lot/1.png", root="elsewhere")
    root = folder("b/2.png")
    (root / "a").symlink_to(elsewhere, target_is_directory=True)
    (root / "b" / "3.png").symlink_to(elsewhere / "lot" / "1.png")
    (root / "b" / "again").symlink_to(root / "b", target_is_directory=True)
    assert [example.file for example in read_folder(root).train] == ["a/lot/1.png", "b/2.png", "b/3.png"]


def test_japanese_names_are_one_class_however_they_are_composed(folder):
    composed, decomposed = "ガラスの傷", unicodedata.normalize("NFD", "ガラスの傷")
    assert composed != decomposed
    data = read_folder(
        folder(f"train/{composed}/1.png", "train/無傷/2.png", f"test/{decomposed}/3.png", "test/無傷/4.png")
    )
    assert data.classes == (composed, "無傷")


def test_a_missing_folder_and_a_file_are_refused(tmp_path, draw):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a\.png: not a folder"):
        read_folder(draw(tmp_path / "a.png"))


def test_what_the_system_refuses_is_told_with_the_reason(folder, monkeypatch):
    with pytest.raises(DataError, match="x: File name too long; give a shorter name"):
        read_folder(Path("x" * 300))
    root = folder("a/1.png", "b/2.png")

    def closed(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(DataError, match="tiles: Permission denied; change its permissions"):
        read_folder(root)


def test_fewer_than_two_classes_are_refused_and_the_one_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="only one class, 'only'; at least two"):
        read_folder(folder("train/only/a.png"))
    with pytest.raises(DataError, match="no labelled picture"):
        read_folder(folder("1.png", "2.png", root="flat"))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="void: no labelled picture"):
        read_folder(tmp_path / "void")


def test_all_empty_classes_are_named(folder):
    root = folder("train/a/1.png", "train/b/2.png", "test/a/3.png")
    (root / "train" / "D4").mkdir()
    (root / "train" / "E5" / "deeper").mkdir(parents=True)
    (root / "train" / "E5" / "a.txt").write_text("x")
    (root / "test" / "b").mkdir()
    with pytest.raises(DataError, match="without a picture") as refusal:
        read_folder(root)
    assert all(str(root / one) in str(refusal.value) for one in ("train/D4", "train/E5", "test/b"))


def test_a_test_split_without_a_train_split_is_refused(folder):
    root = folder("test/a/1.png", "val/b/2.png")
    with pytest.raises(DataError, match="test, val but no train folder"):
        read_folder(root)


def test_a_class_of_the_test_split_alone_is_refused_and_one_of_training_alone_is_noted(folder):
    with pytest.raises(DataError, match="test split has pictures of 'c'"):
        read_folder(folder("train/a/1.png", "train/b/2.png", "test/c/3.png", "test/a/4.png"))
    data = read_folder(folder("train/a/1.png", "train/b/2.png", "test/a/4.png", root="other"))
    assert data.notes == ("the test split has no picture of 'b': learned, but never judged",)


def test_unreadable_pictures_are_all_named_or_skipped_by_flag(folder, tmp_path):
    root = folder("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "b" / "torn.png").write_bytes((root / "b" / "3.png").read_bytes()[:60])
    (root / "b" / "gone.png").symlink_to(root / "nothing.png")
    with pytest.raises(DataError, match=r"3 of 7 pictures cannot be read.*--skip-unreadable") as refusal:
        read_folder(root)
    assert all(str(root / name) in str(refusal.value) for name in ("a/empty.png", "b/torn.png", "b/gone.png"))
    data = read_folder(root, skip_unreadable=True)
    assert len(data.train) == 4
    assert data.notes == ("3 unreadable pictures are left out: a/empty.png, b/gone.png, b/torn.png",)


def test_more_than_twenty_unreadable_pictures_are_counted(folder):
    root = folder("a/1.png", "b/2.png")
    for i in range(30):
        (root / "a" / f"bad{i:02}.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"bad19\.png \([^;]*\); and 10 more; repair"):
        read_folder(root)


def test_a_class_that_skipping_empties_is_refused(folder):
    root = folder("a/1.png", "b/2.png", "c/3.png")
    (root / "c" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture of 'c' can be read \(c/3\.png\)"):
        read_folder(root, skip_unreadable=True)


def test_a_test_split_that_skipping_empties_is_refused(folder):
    root = folder("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    (root / "test" / "a" / "3.png").write_bytes(b"")
    data = read_folder(root, skip_unreadable=True)
    assert data.notes[-1] == "the test split has no picture of 'a': learned, but never judged"
    (root / "test" / "b" / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture of the test split can be read \(test/a/3\.png, test/b/4\.png\)"):
        read_folder(root, skip_unreadable=True)


@pytest.mark.parametrize(
    "pair", [("scratch", "Scratch"), ("a_b", "a-b"), ("a b", "a  b"), ("A7", "Ａ７"), ("straße", "STRASSE")]
)
def test_class_names_that_collide_are_refused_and_named(folder, pair):
    root = folder(f"{pair[0]}/1.png", f"{pair[1]}/2.png", "other/3.png")
    with pytest.raises(DataError, match="differ only in") as refusal:
        read_folder(root)
    assert all(f"'{name}'" in str(refusal.value) for name in pair) and "other" not in str(refusal.value)


def test_a_class_name_without_a_letter_is_refused(folder):
    with pytest.raises(DataError, match="'_' says nothing"):
        read_folder(folder("_/1.png", "b/2.png"))


@pytest.mark.skipif(os.name != "posix", reason="only there can file names be no text")
def test_file_names_that_are_not_utf_8_are_refused(folder):
    root = folder("a/1.png", "b/2.png")
    (root / "a" / "1.png").rename(os.fsdecode(os.fsencode(root / "a") + b"/caf\xe9.png"))
    with pytest.raises(DataError, match=r"that are not UTF-8: a/caf\\udce9\.png") as refusal:
        read_folder(root)
    str(refusal.value).encode()


@pytest.mark.skipif(os.name != "posix", reason="only there can file names be no text")
def test_a_folder_whose_name_is_not_utf_8_is_refused_before_a_picture_is_read(folder):
    root = folder("a/1.png", "b/2.png")
    odd = root.rename(os.fsdecode(os.fsencode(root.parent) + b"/sj_\x83\x4a"))
    with pytest.raises(DataError, match=r"sj_\\udc83J: the name of this folder is not UTF-8; rename it") as refusal:
        read_folder(odd, progress=lambda *_: pytest.fail("a picture was read"))
    str(refusal.value).encode()


def test_progress_counts_every_picture(folder):
    seen = []
    read_folder(folder(*[f"{c}/{i}.png" for c in "ab" for i in range(5)]), progress=lambda *at: seen.append(at))
    assert seen == [(i, 10) for i in range(1, 11)]


def test_the_digest_is_of_the_content_wherever_the_folder_is(tmp_path, draw):
    def made(root, first):
        draw(tmp_path / root / "a" / "1.png", seed=first)
        draw(tmp_path / root / "b" / "2.png", seed=2)
        return read_folder(tmp_path / root)

    assert made("x", 1).digest == made("y", 1).digest != made("z", 3).digest


def test_opening_a_picture_that_has_gone_names_it(folder):
    root = folder("a/1.png", "b/2.png")
    data = read_folder(root)
    (root / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=f"{root}/a/1.png: No such file"):
        data.open(data.train[0])


def test_a_group_column_needs_metadata(folder):
    with pytest.raises(DataError, match=r"group column 'lot' needs a metadata\.csv"):
        read_folder(folder("a/1.png", "b/2.png"), group_column="lot")


# metadata files at their places


def test_metadata_at_the_root_replaces_class_folders(folder):
    root = folder("pictures/1.png", "pictures/2.png", "pictures/3.png")
    (root / "metadata.csv").write_text(
        "file_name,label,lot\npictures/1.png,傷,L1\npictures/2.png,無傷,\n", encoding="utf-8"
    )
    data = read_folder(root, group_column="lot")
    assert data.classes == ("傷", "無傷")
    assert [(e.file, e.label, e.group) for e in data.train] == [
        ("pictures/1.png", 0, "L1"),
        ("pictures/2.png", 1, None),
    ]
    assert data.notes == (
        "1 pictures that the metadata do not list are left out: pictures/3.png",
        "1 pictures without a group are each a group of their own: pictures/2.png",
    )


def test_files_that_metadata_list_in_another_composition_are_not_said_to_be_left_out(folder, monkeypatch):
    name = unicodedata.normalize("NFD", "ガラス.png")
    root = folder(name, "2.png")
    (root / "metadata.csv").write_text("file_name,label\nガラス.png,a\n2.png,b\n", encoding="utf-8")
    data = read_folder(root)
    assert files(data.train) == [("2.png", 1), (name, 0)] and data.notes == ()
    assert data.open(data.train[1]).size == (4, 5)
    # A file system that opens either composition and lists one.
    monkeypatch.setattr(folders, "read_metadata", lambda *_: [Listed("ガラス.png", "a"), Listed("2.png", "b")])
    assert folders._list(root, "label", None)[1] == []


def test_of_two_files_that_differ_in_composition_the_one_that_is_not_listed_is_said_to_be_left_out(folder):
    name = unicodedata.normalize("NFD", "ガラス.png")
    root = folder(name, "ガラス.png", "2.png")
    (root / "metadata.csv").write_text("file_name,label\nガラス.png,a\n2.png,b\n", encoding="utf-8")
    assert read_folder(root).notes == (f"1 pictures that the metadata do not list are left out: {name}",)


def test_metadata_at_the_root_may_speak_of_splits(folder):
    root = folder("train/1.png", "train/2.png", "test/3.png")
    (root / "metadata.jsonl").write_text(
        "".join(
            f'{{"file_name": "{f}", "label": "{c}"}}\n'
            for f, c in [("train/1.png", "a"), ("train/2.png", "b"), ("test/3.png", "a")]
        )
    )
    data = read_folder(root)
    assert files(data.train) == [("train/1.png", 0), ("train/2.png", 1)] and files(data.test) == [("test/3.png", 0)]


def test_pictures_without_a_group_among_those_with_one_are_told(folder):
    root = folder("1.png", "2.png", "3.png")
    (root / "metadata.csv").write_text("file_name,label,lot\n1.png,bad,x\n2.png,ok,\n3.png,ok,x\n")
    assert read_folder(root, group_column="lot").notes == (
        "1 pictures without a group are each a group of their own: 2.png",
    )
    assert read_folder(root).notes == ()


def test_a_label_column_without_any_metadata_is_refused(folder):
    with pytest.raises(DataError, match=r"label column 'kind' needs a metadata\.csv"):
        read_folder(folder("ok/3.png", "bad/4.png"), label_column="kind")


def test_metadata_in_one_split_and_class_folders_in_the_other(folder):
    root = folder("train/1.png", "train/2.png", "test/ok/3.png", "test/bad/4.png")
    (root / "train" / "metadata.csv").write_text("file_name,kind\n1.png,bad\n./2.png,ok\n")
    data = read_folder(root, label_column="kind")
    assert files(data.train) == [("train/1.png", 0), ("train/2.png", 1)]
    assert files(data.test) == [("test/bad/4.png", 0), ("test/ok/3.png", 1)]
    assert data.notes == ()
