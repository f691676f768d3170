import json
from pathlib import Path

import pytest
from pretraining.sources import (
    LICENCES,
    VALIDATION,
    Icon,
    colour_captions,
    is_held_out,
    may_train,
    read_icons,
    shared_captions,
    vendor,
)


def _info(licence: str, category: str = "Emoji") -> dict:
    return {"license": {"spdx": licence}, "category": category, "palette": True}


@pytest.mark.parametrize("licence", ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0", "GPL-2.0-or-later", "MPL-2.0", None])
def test_share_alike_non_commercial_and_copyleft_sets_are_never_trained_on(licence: str | None):
    assert licence not in LICENCES
    assert not may_train("anything", {"license": {"spdx": licence}, "category": "Emoji"})


@pytest.mark.parametrize(
    "name", ["openmoji", "hugeicons", "fluent", "fluent-emoji", "fluent-emoji-flat", "fluent-color", "fluent-mdl2"]
)
def test_held_out_vendors_are_never_trained_on(name: str):
    assert is_held_out(name)
    assert not may_train(name, _info("MIT"))
    assert name not in VALIDATION


def test_logos_and_file_types_are_left_out():
    assert not may_train("logos", _info("CC0-1.0", "Logos"))
    assert not may_train("devicon", _info("MIT", "Programming"))
    assert may_train("noto", _info("Apache-2.0"))


def test_two_styles_of_one_vendor_are_one_source():
    assert vendor("fa6-solid") == vendor("fa7-solid")
    one = [Icon(s, "x", "anchor", False, (0, 0, 1, 1), "") for s in ("fa6-solid", "fa7-solid")]
    assert shared_captions(one) == set()
    assert shared_captions([*one, Icon("lucide", "x", "anchor", False, (0, 0, 1, 1), "")]) == {"anchor"}
    assert colour_captions(one) == set()


def test_reading_keeps_three_of_a_name_in_colour_and_one_otherwise(tmp_path: Path):
    (tmp_path / "json").mkdir()
    icons = {f"anchor-{i}": {"body": f"<path d='{i}'/>"} for i in range(5)} | {"old": {"body": "", "hidden": True}}
    for name in ("noto", "lucide"):
        (tmp_path / "json" / f"{name}.json").write_text(json.dumps({"icons": icons, "width": 24, "height": 24}))
    collections = {"noto": _info("Apache-2.0"), "lucide": _info("ISC") | {"palette": False}}
    (tmp_path / "collections.json").write_text(json.dumps(collections))
    read = read_icons(tmp_path, may_train)
    assert [icon.set for icon in read] == ["lucide", "noto", "noto", "noto"]
    assert {icon.caption for icon in read} == {"anchor"}
    assert read[0].box == (0, 0, 24, 24)
