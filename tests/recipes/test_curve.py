import json

import numpy as np
import pytest

from kusabi.errors import DataError, RunError, SpecError
from kusabi.evaluation.stored import CURVE, read_curve
from kusabi.recipes import curve as module
from kusabi.recipes.adapt import adapt
from kusabi.recipes.curve import curve
from kusabi.recipes.curve_folder import ANSWERS, CurveAsked
from kusabi.report.written import write_report
from kusabi.spec_file import build, overlay

QUICK = {
    "backbone": {"input_size": 28},
    "data": {"views": 1},
    "adapter": {"layers": "last-1", "budget": 200},
    "training": {"steps": 2, "batch_size": 4},
}
ASKED = CurveAsked(shots=(1, 2, 3), draws=2, more=4)


@pytest.fixture
def spec():
    return build(QUICK)


def test_a_killed_curve_goes_on_to_the_same_bytes(tiles, spec, tmp_path, monkeypatch):
    folder, whole, broken = tiles(train=3, test=4), tmp_path / "whole", tmp_path / "broken"
    curve(str(folder), spec, whole, ASKED)
    trained, real = [], module._line

    def dying(*arguments):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(module, "_line", dying)
    with pytest.raises(KeyboardInterrupt):
        curve(str(folder), spec, broken, ASKED)
    assert not (broken / CURVE).exists() and len((broken / ANSWERS).read_text(encoding="utf-8").splitlines()) == 3
    monkeypatch.setattr(module, "_line", real)
    with pytest.raises(RunError):
        curve(str(folder), spec, broken, ASKED)
    curve(str(folder), spec, broken, ASKED, resume=True)
    assert (broken / ANSWERS).read_bytes() == (whole / ANSWERS).read_bytes()
    assert (broken / CURVE).read_bytes() == (whole / CURVE).read_bytes()
    with pytest.raises(RunError, match="draws is 2 there, 3 here"):
        curve(str(folder), spec, broken, CurveAsked(shots=(1, 2, 3), draws=3, more=4), resume=True)
    with pytest.raises(RunError):
        adapt(str(folder), spec, whole, resume=True)


def test_draws_are_nested_and_judged_on_the_same_pictures(tiles, spec, tmp_path):
    found = curve(str(tiles(train=4, test=4)), spec, tmp_path / "curve", ASKED)
    lines = [json.loads(line) for line in (tmp_path / "curve" / ANSWERS).read_text(encoding="utf-8").splitlines()]
    of = {(line["shots"], line["draw"]): line for line in lines}
    assert len(of) == 6 and {len(line["answers"]["adapted"]) for line in lines} == {12}
    for draw in range(2):
        assert set(of[1, draw]["support"]) < set(of[2, draw]["support"]) < set(of[3, draw]["support"])
    assert of[3, 0]["support"] != of[3, 1]["support"]
    assert found["labels"] == [1, 2, 3] and [p["shots"] for p in found["methods"]["adapted"]["points"]] == [1, 2, 3]
    assert found == read_curve(tmp_path / "curve")


def test_a_draw_answers_as_the_adapter_of_adapt_does(tiles, spec, tmp_path):
    folder = tiles(train=3, test=4)
    curve(str(folder), spec, tmp_path / "curve", ASKED)
    line = json.loads((tmp_path / "curve" / ANSWERS).read_text(encoding="utf-8").splitlines()[2])
    alone = adapt(str(folder), build(overlay(QUICK, {"data": {"shots": 2, "views": 1}})), tmp_path / "run")
    assert (line["shots"], line["draw"]) == (2, 0)
    truth = np.repeat(np.arange(3), 4)
    for method in ("adapted", "linear_probe", "class_mean"):
        assert (np.array(line["answers"][method]) == truth).mean() == pytest.approx(alone[method]["accuracy"])


def test_without_a_test_split_half_of_every_class_judges(tiles, spec, tmp_path):
    found = curve(str(tiles(train=6, test=0)), spec, tmp_path / "curve", ASKED)
    assert found["task"]["query_pictures"] == 9
    assert any("half of every class judges" in note for note in found["task"]["notes"])


def test_what_cannot_be_asked_is_refused_before_anything_is_written(tiles, spec, tmp_path):
    with pytest.raises(SpecError, match=r"shots \[4, 2\].*1 draws.*0 more labels.*0 points"):
        CurveAsked(shots=(4, 2), draws=1, more=0, worth=0)
    with pytest.raises(DataError, match="8 shots: no class has more than 3 pictures"):
        curve(str(tiles(train=3, test=4)), spec, tmp_path / "curve", CurveAsked(shots=(1, 8), draws=2))
    assert not (tmp_path / "curve").exists()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_curve_has_a_page(language, tiles, spec, tmp_path):
    curve(str(tiles(train=3, test=4)), spec, tmp_path / "curve", ASKED)
    page = write_report([tmp_path / "curve"], None, language).read_text(encoding="utf-8")
    words = {
        "en": ("Accuracy by labels per class", "From draw to draw"),
        "ja": ("1クラスあたりのラベル数と正解率", "ばらつき"),
    }
    assert (
        all(one in page for one in words[language])
        and "<script" not in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )


@pytest.mark.parametrize("test", [0, 4])
def test_a_finished_curve_is_handed_out_again_for_the_same_pictures_alone(test, tiny, tiles, tmp_path, monkeypatch):
    spec = build(overlay(QUICK, {"backbone": {"backbone": str(tiny("clip")), "input_size": None}}))
    folder, asked = tiles(train=4, test=test), CurveAsked(shots=(1, 2), draws=2)
    found = curve(str(folder), spec, tmp_path / "curve", asked)
    monkeypatch.setattr(module, "pose_on", lambda *_, **__: pytest.fail("nothing is to be measured"))
    assert curve(str(folder), spec, tmp_path / "curve", asked, resume=True) == found
    tiles(train=5, test=test)
    with pytest.raises(RunError, match="the pictures have changed since this run began"):
        curve(str(folder), spec, tmp_path / "curve", asked, resume=True)
