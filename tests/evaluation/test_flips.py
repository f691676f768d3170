import pytest

from kusabi.errors import DataError
from kusabi.evaluation.flips import flips


def test_pictures_are_listed_by_file_with_names_of_classes():
    found = flips([0, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 2], ["a.png", "b.png", "c.png", "d.png"], ["x", "y", "z"])
    assert found == {
        "fixed": [{"file": "a.png", "label": "y", "before": "x", "after": "y"}],
        "broken": [{"file": "c.png", "label": "y", "before": "y", "after": "x"}],
    }


def test_swapping_before_and_after_swaps_the_lists():
    labels, one, other, files = [0, 1, 2, 0], [0, 0, 2, 1], [1, 1, 2, 0], list("abcd")
    there, back = flips(one, other, labels, files, "xyz"), flips(other, one, labels, files, "xyz")
    assert [f["file"] for f in there["fixed"]] == [f["file"] for f in back["broken"]] == ["b", "d"]
    assert [f["file"] for f in there["broken"]] == [f["file"] for f in back["fixed"]] == ["a"]


def test_lengths_that_differ_and_unknown_classes_are_refused():
    with pytest.raises(DataError, match="1 files"):
        flips([0, 1], [0, 1], [0, 1], ["a"], ["x", "y"])
    with pytest.raises(DataError, match="label 2"):
        flips([0], [2], [0], ["a"], ["x", "y"])
