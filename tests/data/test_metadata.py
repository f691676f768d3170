import json
import unicodedata

import pytest

from kusabi.data.listing import Listed
from kusabi.data.metadata import metadata_file, read_metadata
from kusabi.errors import DataError


@pytest.fixture
def root(folder):
    return folder("train/1.png", "train/deep/2.png")


def write(root, content, name="metadata.csv"):
    path = root / "train" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(root, content, name="metadata.csv", label="label", group=None):
    path = write(root, content, name)
    with pytest.raises(DataError) as caught:
        read_metadata(path, root, label, group)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_csv_rows_become_pictures(root, start, end):
    lines = [b"lot,file_name,label", b'"L,1",1.png, whole ', b',deep\\2.png,"cracked ""badly"""', b""]
    path = write(root, start + end.join(lines))
    assert read_metadata(path, root, "label", "lot") == [
        Listed("train/1.png", "whole", "L,1"),
        Listed("train/deep/2.png", 'cracked "badly"', None),
    ]


def test_json_rows_become_pictures(root):
    rows = [{"file_name": "1.png", "label": 7, "lot": 3}, {"file_name": "deep/2.png", "label": True, "more": [1]}]
    path = write(root, "\n\n".join(json.dumps(row) for row in rows), "metadata.jsonl")
    assert read_metadata(path, root, "label", "lot") == [
        Listed("train/1.png", "7", "3"),
        Listed("train/deep/2.png", "true", None),
    ]


def test_a_missing_column_names_those_that_exist(root):
    said = refusal(root, "file_name,class,lot\n1.png,a,x\n")
    assert "no column 'label'; it has 'file_name', 'class', 'lot'" in said and "--label-column" in said
    assert "no column 'camera'; it has 'file_name', 'label'" in refusal(
        root, "file_name,label\n1.png,a\n", group="camera"
    )
    assert "no column 'file_name' and no column 'label'" in refusal(root, '{"a": 1}', "metadata.jsonl")
    assert "separate columns by commas" in refusal(root, "file_name;label\n1.png;a\n")
    assert "name the column with the files file_name" in refusal(root, "file,label\n1.png,a\n")


def test_all_files_that_are_not_there_are_named(root):
    said = refusal(root, "file_name,label\nx.png,a\n1.png,a\ny/z.png,b\n")
    assert str(root / "train" / "x.png") in said and str(root / "train" / "y" / "z.png") in said and "1.png" not in said


def test_names_find_their_files_however_they_are_composed(folder):
    there, named = (unicodedata.normalize(form, "ガラス/é.png") for form in ("NFD", "NFC"))
    root = folder(f"train/{there}", "train/1.png")
    path = write(root, f"file_name,label\n{named},a\n1.png,b\n")
    assert [one.file for one in read_metadata(path, root, "label", None)] == [f"train/{there}", "train/1.png"]
    assert "listed twice" in refusal(root, f"file_name,label\n{named},a\n{there},b\n")


def test_a_name_that_fits_two_files_finds_neither(folder):
    marks = "a\u0323\u0307", "a\u0307\u0323"  # two orders of the same marks, and a third spelling in the list
    root = folder(*(f"train/{name}.png" for name in marks))
    assert "files that are not there" in refusal(root, "file_name,label\n\u1ea1\u0307.png,a\n")


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "deep/../../1.png", "..\\1.png"])
def test_files_outside_of_the_folder_are_refused(root, name):
    assert f"files outside of its folder: {name}".replace("\\", "/") in refusal(root, f"file_name,label\n{name},a\n")


def test_files_listed_twice_are_refused(root):
    assert "listed twice: 1.png" in refusal(root, "file_name,label\n1.png,a\n./1.png,b\n")


def test_rows_without_a_label_or_a_file_name_are_named_by_line(root):
    assert "no file_name or no label: line 2, line 4" in refusal(root, "file_name,label\n1.png,\ndeep/2.png,a\n,b\n")
    rows = '{"file_name": "1.png", "label": null}\n{"file_name": "deep/2.png", "label": {}}\n{"label": "a"}'
    assert "line 1, line 2, line 3" in refusal(root, rows, "metadata.jsonl")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "metadata.csv", "lists no picture"),
        ("file_name,label\n", "metadata.csv", "lists no picture"),
        ("\n \n", "metadata.jsonl", "lists no picture"),
        ("file_name,label\n傷.png,傷\n".encode("cp932"), "metadata.csv", "not UTF-8"),
        ('file_name,label\n"1.png,a\n', "metadata.csv", "not valid CSV"),
        ("file_name,label\n1.png,a,b\n", "metadata.csv", "line 2 does not have 2 fields"),
        ("file_name,label\n1.png\n", "metadata.csv", "line 2 does not have 2 fields"),
        ('{"file_name": "1.png", "label": "a"}\n{"file', "metadata.jsonl", "line 2 is not valid JSON"),
        ("[1]", "metadata.jsonl", "line 1 is not a JSON object"),
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}", "metadata.jsonl", "line 2 has a number too long or is nested"),
        ('{"a": ' + "[" * 100_000, "metadata.jsonl", "line 1 has a number too long or is nested too deeply"),
    ],
)
def test_files_that_cannot_be_understood_are_refused_with_the_place(root, content, name, said):
    assert said in refusal(root, content, name)


def test_two_metadata_files_and_parquet_are_refused(root):
    assert metadata_file(root) is None
    assert metadata_file(root / "train") is None
    path = write(root, "x", "metadata.parquet")
    with pytest.raises(DataError, match="parquet is not read here"):
        metadata_file(root / "train")
    path.unlink()
    one = write(root, "x")
    assert metadata_file(root / "train") == one
    write(root, "x", "metadata.jsonl")
    with pytest.raises(DataError, match="side by side; keep one"):
        metadata_file(root / "train")
