from pathlib import Path

from PIL import Image

from benchmarks.coloured_shapes import named
from benchmarks.pool import balanced, halves, lay_out
from kusabi.data.source import read_dataset
from kusabi.data.split import Split, few_shot_split


def picture(shade):
    return Image.new("L", (8, 8), shade)


def test_a_pool_becomes_an_ordinary_folder_whose_test_split_judges(tmp_path):
    picture(250).save(tmp_path / "own.bmp")
    learned = {"a b": [picture(1), picture(2)], "c": [picture(3), tmp_path / "own.bmp"]}
    judged = {"a b": [picture(4)], "c": [picture(5)]}
    for _ in range(2):  # what was there before is replaced
        lay_out(learned, judged, tmp_path / "task")
    assert sorted(path.name for path in (tmp_path / "task" / "train" / "c").iterdir()) == ["0000.png", "0001.bmp"]
    split = few_shot_split(read_dataset(tmp_path / "task"), 2, 0)
    assert isinstance(split, Split)
    assert (len(split.support), len(split.query), split.held_out) == (4, 2, "test split")


def test_a_balanced_pool_is_as_big_as_asked_or_as_its_smallest_class():
    pool = {"a": [picture(n) for n in range(9)], "b": [picture(n) for n in range(5)]}
    assert [len(pictures) for pictures in balanced(pool, 7).values()] == [3, 3]
    assert [len(pictures) for pictures in balanced(pool, 100).values()] == [5, 5]


def test_halves_share_no_picture_and_lose_none():
    pool = {"a": [picture(n) for n in range(5)], "b": [picture(n) for n in range(4)]}
    learned, judged = halves(pool)
    assert {name: len(pictures) for name, pictures in learned.items()} == {"a": 2, "b": 2}
    assert all([*learned[name], *judged[name]] == pictures for name, pictures in pool.items())


def test_a_coloured_shape_is_named_only_where_its_answers_tell_both():
    questions = [("q",) * 5, ("red", "circle", "yes", "teal", "rectangle"), (7, 7, 7, 8, 9)]
    pool = named({7: "7.png", 8: "8.png", 9: "9.png"}, questions)
    assert len(pool) == 24
    assert {name: paths for name, paths in pool.items() if paths} == {"red circle": [Path("7.png")]}
