import copy
import json
from pathlib import Path

import pytest

from kusabi.errors import CheckpointError, KusabiError, RunError
from kusabi.recipes.candidates import conclusions
from kusabi.report.candidates_answers import answers
from kusabi.report.candidates_figure import END, START, groups, ranked
from kusabi.report.candidates_page import render_comparison
from kusabi.report.words import read_words
from kusabi.report.written import write_report

GOLDEN = Path(__file__).parents[1] / "golden" / "comparison-1"


def golden():
    return json.loads((GOLDEN / "comparison.json").read_text(encoding="utf-8"))


def made(*models, way="adapted"):
    """A comparison of models that are right about the first so many of 200 pictures; ``None`` failed."""
    pattern = next(row for row in golden()["candidates"] if row["error"] is None)
    del pattern["name"]
    rows = []
    for name, hits, parameters, licence in models:
        row = copy.deepcopy(pattern)
        row["asked"] = row["backbone"]["source"] = name
        if hits is None:
            rows.append({"asked": name, "error": f"{name}: no such model"})
            continue
        row["backbone"]["parameters"] = parameters
        row["licence"] = {"name": licence, "where": "README.md" if licence else None,
                          "note": None if licence else "nothing says"}  # fmt: skip
        row["right"][way] = "1" * hits + "0" * (200 - hits)
        row[way] |= {"accuracy": hits / 200, "interval": [hits / 200 - 0.05, hits / 200 + 0.05]}
        rows.append(row)
    return golden() | conclusions(rows, 3, way)


def said(found, language="en"):
    return answers(found, read_words(language))


def test_the_golden_comparison_says_what_it_said_when_it_was_written():
    first, *others = said(golden())
    assert first.startswith(
        "None of these models is clearly above guessing (33.3\u00a0%): the best, clip, is right in 58.3"
    )
    assert any(one.startswith("pickled could not be measured: no model.safetensors here") for one in others)
    assert any(one.startswith("The licence of clip is unknown (neither README.md") for one in others)


def test_intervals_that_know_of_no_groups_are_said_to_be_too_narrow():
    grouped = golden()
    grouped["task"] |= {"query_groups": 2, "query_pictures": 12}
    assert set(said(grouped)) == {*said(golden()), read_words("en")("facts.grouped")}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_golden_comparison_has_a_page_that_needs_nothing_else(language):
    page = render_comparison(golden(), language)
    lead = {"en": "before anybody commits to one", "ja": "モデルを決める前に"}[language]
    assert lead in page and "{{" not in page and "<script" not in page and "://" not in page
    assert render_comparison(golden(), language) == page


def test_a_clear_best_is_taken_and_its_lead_is_paired():
    found = made(("weak", 120, 5, "mit"), ("strong", 180, 9, "mit"))
    first, behind, licence, hindsight = said(found)
    assert first.startswith("Take strong: with a quick adapter it is right in 90.0\u00a0% (85.0 to 95.0\u00a0%)")
    assert "weak (by +30.0 points" in behind and "clearly behind" in behind
    assert licence == "Licence of strong: mit, as its README.md says." and "hindsight" in hindsight
    assert 'verdict better"' in render_comparison(found, "en")


def test_a_smaller_level_one_is_named_and_unknown_licences_are_told_as_unknown():
    found = made(("big", 180, 1000, "mit"), ("small", 179, 10, None), ("lost", None, 0, None))
    sentences = said(found)
    assert "do not tell it from: small (by +0.5 points" in sentences[1]
    assert sentences[2].startswith("Of these level ones small is the smallest (10 parameters; big has 1,000)")
    assert "The licence of small is unknown (nothing says): settle it before the model is used." in sentences
    assert sentences[-1] == "lost could not be measured: no such model"
    page = render_comparison(found, "en")
    assert 'verdict unclear"' in page and '<td class="words">unknown' in page
    assert [len(said(found, language)) for language in ("en", "ja")] == [len(sentences)] * 2


def test_faster_is_said_with_both_speeds():
    found = made(("big", 180, 1000, "mit"), ("small", 179, 10, "mit"))
    rows = {row["name"]: row for row in found["candidates"]}
    rows["small"]["speed"] |= {"pictures_per_second": 90.0, "lowest": 80.0, "highest": 100.0}
    rows["big"]["speed"] |= {"pictures_per_second": 9.0, "lowest": 8.0, "highest": 10.0}
    again = found | conclusions([rows["big"], rows["small"]], 3, "adapted")
    assert "small is level and clearly faster: 90.0 pictures/s; big: 9.0 pictures/s." in said(again)


def test_one_that_was_measured_alone_is_not_called_the_best_of_several():
    found = made(("alone", 180, 10, "mit"), ("lost", None, 0, None))
    sentences = said(found)
    assert sentences[0].startswith("Only one model was measured: alone") and "hindsight" not in " ".join(sentences)


def test_an_interval_that_reaches_down_to_guessing_is_no_reason_to_take_a_model():
    assert said(made(("a", 75, 5, "mit"), ("b", 60, 5, "mit")))[0].startswith("None of these models is clearly above")
    assert said(made(("a", 80, 5, "mit"), ("b", 60, 5, "mit")))[0].startswith("Take a")


def test_bars_stand_best_first_between_start_and_end():
    found = made(("weak", 120, 5, "mit"), ("strong", 200, 9, "mit"))
    assert [row["name"] for row in ranked(found)] == ["strong", "weak"]
    drawn = groups(found)
    bar = drawn["groups"][1]["bars"][-1]
    assert bar["width"] == pytest.approx(0.6 * (END - START)) and bar["way"] == "adapted"
    assert bar["low"] == pytest.approx(START + 0.55 * (END - START))
    assert drawn["groups"][0]["bars"][-1]["width"] == pytest.approx(END - START)
    assert drawn["guess"]["x"] == pytest.approx(START + (END - START) / 3, abs=0.01)
    heights = [bar["y"] for bar in drawn["groups"][0]["bars"]]
    assert heights == sorted(set(heights)) and heights[-1] + drawn["bar"] == drawn["bottom"] < drawn["height"]


def test_names_from_outside_are_escaped_and_other_schemas_refused():
    assert "<b>" not in render_comparison(made(("<b>x</b>", 180, 5, "<b>"), ("y", 90, 5, "mit")), "en").replace(
        "<body", ""
    )
    with pytest.raises(CheckpointError, match="schema 2"):
        render_comparison(golden() | {"schema": 2}, "en")


def test_a_page_is_written_beside_the_comparison_and_for_one_alone(tmp_path):
    (tmp_path / "comparison.json").write_bytes((GOLDEN / "comparison.json").read_bytes())
    assert write_report([tmp_path]) == tmp_path / "report.html" and (tmp_path / "report.html").exists()
    with pytest.raises(RunError, match="comparison of models"):
        write_report([tmp_path, tmp_path])
    (tmp_path / "mine.jpg").write_bytes(b"a picture")
    (tmp_path / "mine.html").write_text("<!doctype html><title>Mine</title>")
    for place, said in (
        (tmp_path / "mine.jpg", "something else"),
        (tmp_path / "mine.html", "something else"),
        (tmp_path, "something else"),
        (Path(), "names no file"),
    ):
        with pytest.raises(KusabiError, match=said):
            write_report([tmp_path], place)
    assert (tmp_path / "mine.jpg").read_bytes() == b"a picture"
    assert write_report([tmp_path]) == tmp_path / "report.html", "a page is replaced"
