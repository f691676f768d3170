import threading
import unicodedata

import numpy as np
import pytest
from PIL import Image

from kusabi.data.listing import Listed, build_dataset
from kusabi.errors import DataError


def read(file):
    if file.startswith("bad"):
        raise DataError("too bad")
    return Image.fromarray(np.full((2, 2, 3), len(file) + ord(file[-1]), np.uint8))


LISTED = [Listed("x2", "b"), Listed("x1", "a", "lot"), Listed("x3", "b")]


def test_examples_come_in_the_order_of_their_files_whatever_the_order_of_the_list():
    one = build_dataset("here", "name", {"train": LISTED}, read)
    other = build_dataset("here", "name", {"train": LISTED[::-1]}, read)
    assert one == other and one.digest == other.digest
    assert [(e.file, e.label, e.group) for e in one.train] == [("x1", 0, "lot"), ("x2", 1, None), ("x3", 1, None)]


def test_every_picture_is_decoded_once_and_progress_is_told_in_the_calling_thread():
    opened, told = [], []

    def counting(file):
        opened.append(file)
        return read(file)

    build_dataset(
        "here", "name", {"train": LISTED}, counting, progress=lambda *at: told.append((*at, threading.current_thread()))
    )
    assert sorted(opened) == ["x1", "x2", "x3"]
    assert told == [(done, 3, threading.main_thread()) for done in (1, 2, 3)]


def test_an_exception_from_progress_stops_the_reading():
    def stop(done, total):
        raise KeyboardInterrupt

    many = [Listed(f"x{i}", "ab"[i % 2]) for i in range(3000)]
    opened = []
    with pytest.raises(KeyboardInterrupt):
        build_dataset("here", "name", {"train": many}, lambda file: (opened.append(file), read(file))[1], progress=stop)
    assert len(opened) < 3000


def test_bare_reasons_are_put_beside_the_whole_path():
    with pytest.raises(DataError, match=r"1 of 4 pictures cannot be read: here/bad \(too bad\); repair"):
        build_dataset("here", "name", {"train": [*LISTED, Listed("bad", "a")]}, read)


def test_collisions_between_the_splits_are_found_too():
    with pytest.raises(DataError, match="'B', 'b'"):
        build_dataset("here", "name", {"train": LISTED, "test": [Listed("y1", "B")]}, read)


def test_notes_of_the_source_come_first():
    splits = {"train": LISTED, "validation": [Listed("y1", "a")]}
    assert build_dataset("here", "name", splits, read, notes=["first"]).notes[0] == "first"


def test_a_dataset_opens_its_examples_and_says_where_it_could_not():
    data = build_dataset("here", "name", {"train": [*LISTED, Listed("bad", "b")]}, read, skip_unreadable=True)
    assert data.open(data.train[0]).size == (2, 2)
    lost = type(data.train[0])("bad", 0, None, "")
    with pytest.raises(DataError, match="here/bad: too bad"):
        data.open(lost)


def test_a_group_is_one_however_it_is_composed():
    composed, decomposed = "ガラス", unicodedata.normalize("NFD", "ガラス")
    splits = {"train": [*LISTED, Listed("x4", "a", composed)], "test": [Listed("y1", "a", decomposed)]}
    data = build_dataset("here", "name", splits, read)
    assert composed != decomposed
    assert data.train[-1].group == data.test[0].group == composed


def test_labels_and_groups_that_no_text_file_could_hold_are_refused():
    for odd in (Listed("x4", "\ud800"), Listed("x4", "a", "\ud800")):
        with pytest.raises(DataError, match="not UTF-8: x4"):
            build_dataset("here", "name", {"train": [*LISTED, odd]}, read)
