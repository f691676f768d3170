import json

import pytest
from PIL import Image

from benchmarks.accuracy.classic import CLASSIC, MOST, SOURCES, classic
from benchmarks.pool import balanced, lay_out
from kusabi.data.source import read_dataset
from kusabi.errors import DataError

CLASSES = ("F-16A/B", "red panda")


def stand_in(name, cache, each=3):
    """A folder of a data set's layout, with as many pictures of each class in every part."""
    source = SOURCES[name]
    root = cache / "classic" / source.folder
    rows = {part: [] for part in ("train", "val", "test")}
    for label, of in enumerate(CLASSES):
        for part, listed in rows.items():
            for number in range(each):
                path = f"{label}{part}{number}.jpg"
                if name == "imagenet":
                    path = f"{part}/n{label}/{path}"
                elif name == "stanford_cars":
                    path = f"cars_{part}/{path}"
                place = root / source.images / path
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (40 * label, 10 * number, len(part) * 20)).save(place)
                listed.append((path, label, of))
    if name == "imagenet":
        (root / "classnames.txt").write_text("".join(f"n{n} {of}\n" for n, of in enumerate(CLASSES)))
    elif name == "fgvc_aircraft":
        for part, listed in rows.items():
            lines = [f"{path.removesuffix('.jpg')} {of}\n" for path, _, of in listed]
            (root / f"images_variant_{part}.txt").write_text("".join(lines))
    else:
        (root / source.listed.args[0]).write_text(json.dumps(rows))
    return root


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_data_set_is_read_from_its_layout(name, tmp_path):
    root = stand_in(name, tmp_path)
    learned, judged = CLASSIC[name].pictures(tmp_path)
    assert list(learned) == list(judged) == ["F-16A-B", "red panda"]
    for pool, part in ((learned, "train"), (judged, "val" if name == "imagenet" else "test")):
        for label, pictures in enumerate(pool.values()):
            assert [picture.name for picture in pictures] == [f"{label}{part}{number}.jpg" for number in range(3)]
            assert all(picture.is_relative_to(root) and picture.exists() for picture in pictures)
    lay_out(learned, balanced(judged, 4), tmp_path / "task")
    assert read_dataset(str(tmp_path / "task")).classes == ("F-16A-B", "red panda")


def test_of_a_large_class_some_pictures_from_all_over_it_are_drawn(tmp_path):
    stand_in("dtd", tmp_path, each=MOST + 6)
    learned, judged = classic("dtd", tmp_path)
    assert all(MOST / 2 < len(pictures) <= MOST for pictures in learned.values())
    assert all(len(pictures) == MOST + 6 for pictures in judged.values())


def test_imagenets_two_classes_of_one_name_stay_two(tmp_path):
    root = stand_in("imagenet", tmp_path)
    (root / "classnames.txt").write_text("n0 crane\nn1 crane\n")
    assert list(classic("imagenet", tmp_path)[0]) == ["crane n0", "crane n1"]


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"split_zhou_EuroSAT.json: not there; .* CoOp's DATASETS.md"):
        classic("eurosat", tmp_path)
