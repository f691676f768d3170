import copy
import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from kusabi.errors import CheckpointError, RunError, SpecError
from kusabi.evaluation.pool import WAYS, pool
from kusabi.report.page import render
from kusabi.report.words import read_words

PIXEL = "data:image/jpeg;base64,/9j/4AAQ"
HOSTILE = "<script>alert('x')</script>\" onload=\"x & 部品 {{ 7*7 }} {0} %s " + "very_long_name" * 12

RECORDED = [
    "158",
    "1,156",
    "0.988 %",
    "0.079 %",
    "61.4 pictures/s",
    "61.0 pictures/s",
    "12.3 s",
    "1 min 15 s",
    "1.2 GB",
]
RECORDED += ["2.3 kB", "Apache-2.0", "d" * 64, "b" * 64, "kusabi adapt tiles --shots 4 --seed 0", "2.13.0", "96 px"]
RECORDED += ["two pictures were alike", "a photo of a cracked tile", "vision-text-dual-encoder", "200,000"]


class Outline(HTMLParser):
    """Tags with their attributes, what is visible, and whether every tag is closed in order."""

    VOID = frozenset({"meta", "img", "br", "wbr", "line", "rect", "circle", "path"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words).replace("\u00a0", " "))


@pytest.fixture(scope="module")
def single(evaluation_of):
    return evaluation_of()


@pytest.fixture(scope="module")
def pooled(evaluation_of):
    return pool([evaluation_of(seed=seed) for seed in range(3)])


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", ["single", "pooled"])
def test_both_languages_show_one_run_and_several(request, language, kind):
    html = render([(request.getfixturevalue(kind), {})], language)
    page = Outline(html)
    words = read_words(language)
    assert html.startswith(f'<!doctype html>\n<html lang="{language}">')
    for part in ("bars", "paired", "confusion", "flips", "trained", "training", "repeat", "glossary"):
        assert words(f"{part}.heading") in page.text
    assert not re.search(r"\bNone\b|\bnan\b|Undefined|\{\w+\}", page.text)


@pytest.mark.parametrize("kind", ["single", "pooled"])
def test_every_number_is_that_of_the_evaluation(request, kind):
    evaluation = request.getfixturevalue(kind)
    text = Outline(render([(evaluation, {})], "en")).text.replace("−", "-")
    for way in WAYS:
        scores = evaluation[way]
        assert f"{scores['accuracy'] * 100:.1f} %" in text and f"{scores['auroc']:.3f}" in text
        assert "{:.1f} to {:.1f} %".format(*(100 * bound for bound in scores["interval"])) in text
    difference = evaluation["difference"]
    low, high = (f"{bound * 100:.1f}" for bound in difference["interval"])
    seeds = "3 seeds" if kind == "pooled" else "1 seed"
    assert f"{difference['value'] * 100:+.1f} points (95 % interval {low} to {high}, n = 240 pictures, {seeds})" in text
    for row in evaluation["adapted"]["per_class"]:
        assert f"{row['recall'] * 100:.1f} %" in text
    fixed, broken = (len(evaluation["flips"][side]) for side in ("fixed", "broken"))
    assert f"Of 240 pictures, the adapter fixed {fixed} and broke {broken}," in text
    for fact in RECORDED:
        assert fact in text


def test_cells_of_the_confusion_matrices_stand_in_their_order(single):
    html = render([(single, {})], "en")
    tables = re.findall(r'<table class="matrix">.*?</table>', html, re.S)
    for way, table in zip(("zero_shot", "adapted"), tables, strict=True):
        cells = [int(n) for n in re.findall(r"<td class=\"(?:right|wrong)\"[^>]*>(\d+)</td>", table)]
        assert cells == [n for row in single[way]["confusion"] for n in row]


def test_recalls_stand_beside_their_class_before_and_after(single):
    table = re.search(r"<caption>Recall per class.*?</table>", render([(single, {})], "en"), re.S)[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(\d+)</td><td>([\d.]+).*?</td><td>([\d.]+).*?</td>', table)
    before, after = single["zero_shot"]["per_class"], single["adapted"]["per_class"]
    assert rows == [
        (old["class"], str(old["n"]), f"{old['recall'] * 100:.1f}", f"{new['recall'] * 100:.1f}")
        for old, new in zip(before, after, strict=True)
    ]


def test_flips_are_shown_with_what_was_right_and_wrong(single):
    html = render([(single, {})], "en")
    cards = re.findall(r"<li>\s*<dl>.*?</li>", html, re.S)
    for flip in (single["flips"]["fixed"][0], single["flips"]["broken"][0]):
        card = next(card for card in cards if flip["file"] in card)
        marks = dict(re.findall(r'<div class="(right|wrong)"><dt>\w+</dt><dd title="([^"]+)"', card))
        right = flip["before"] if flip["before"] == flip["label"] else flip["after"]
        assert marks["right"] == right == flip["label"] and marks["wrong"] in (flip["before"], flip["after"])


def test_a_losing_adapter_is_called_losing(evaluation_of):
    losing = evaluation_of(strengths={"zero_shot": 3.0, "linear_probe": 3.5, "adapted": 0.5})
    html = render([(losing, {})], "en")
    text = Outline(html).text
    assert "The adapter is worse than the untouched model" in text and "Not this adapter" in text
    assert '<section class="verdict worse">' in html and '<section class="verdict better">' not in html
    assert "下回りました" in Outline(render([(losing, {})], "ja")).text


def test_what_is_missing_is_a_dash(single):
    holes = copy.deepcopy(single)
    for way in WAYS:
        holes[way] |= {"auroc": None, "macro_f1": None, "recall_at_false_alarm": {"rate": 0.05, "recall": None}}
        holes[way]["per_class"][0] |= {"n": 0, "recall": None, "interval": None}
    holes["adapter"] = {"kind": "sparse_delta", "entries": None}
    holes["training"] = {}
    holes["cost"] = {"training_seconds": None, "images_per_second": {"zero_shot": None, "adapted": None}}
    holes["backbone"] = {"digest": None}
    holes["task"] = {"name": "tiles", "classes": holes["task"]["classes"], "seed": 0}
    holes["command"] = None
    del holes["environment"], holes["pictures"]
    for language in ("en", "ja"):
        text = Outline(render([(holes, {})], language)).text
        assert text.count("–") > 25 and "None" not in text
        assert read_words(language)("training.no_curve") in text


@pytest.mark.parametrize("language", ["en", "ja"])
def test_names_from_outside_are_escaped_everywhere(evaluation_of, language):
    classes = [HOSTILE, "scratch", "<b>dent</b>"]
    hostile = evaluation_of(classes=classes, name=HOSTILE, notes=[HOSTILE])
    hostile["command"] = hostile["backbone"]["source"] = hostile["environment"]["processor"] = HOSTILE
    hostile["adapter"]["targets"][0]["projection"] = HOSTILE
    hostile["task"]["held_out"] = HOSTILE
    html = render([(hostile, {file["file"]: PIXEL for file in hostile["flips"]["fixed"]}), (hostile, {})], language)
    page = Outline(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    assert "<b>dent" not in html and all("onload" not in attributes for _, attributes in page.tags)
    assert page.text.count("{{ 7*7 }} {0} %s") > 20
    assert unescape(html).count("部品") > 20


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_reaches_for_nothing_outside(pooled, language):
    thumbnails = {flip["file"]: PIXEL for flip in pooled["flips"]["fixed"]}
    linked = copy.deepcopy(pooled)
    linked["task"]["notes"] = ["see https://example.org/data"]
    html = render([(linked, thumbnails), (linked, {})], language)
    page = Outline(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), f"<{tag} {name}={value}>"
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style and not re.search(r"url\(|@import|@font-face|https?:", style[1])
    assert "https://example.org/data" in page.text
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_only_shown_pictures_carry_their_thumbnail(single):
    thumbnails = {picture["file"]: PIXEL for picture in single["pictures"]}
    page = Outline(render([(single, thumbnails)], "en"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == sum(min(12, len(single["flips"][kind])) for kind in ("fixed", "broken"))
    assert all(image["alt"] and image["src"] == PIXEL for image in images)
    bare = Outline(render([(single, {})], "en"))
    assert not [tag for tag, _ in bare.tags if tag == "img"]
    assert all(flip["file"] in bare.text for flip in single["flips"]["fixed"]), "the full list names every file"


def test_many_classes_show_their_most_confused_pairs(evaluation_of):
    names = [f"kind {place}" for place in range(20)]
    text = Outline(html := render([(evaluation_of(classes=names), {})], "en")).text
    assert 'class="matrix"' not in html and "With 20 classes, only the most frequent mistakes are shown." in text
    twelve = render([(evaluation_of(classes=names[:12]), {})], "en")
    assert twelve.count('class="matrix"') == 2


def test_drawings_and_tables_can_be_read_aloud(single):
    html = render([(single, {})], "en")
    drawings = re.findall(r"<svg([^>]*)>\s*(<title>)?", html)
    meaningful = [(attributes, title) for attributes, title in drawings if 'role="img"' in attributes]
    assert len(meaningful) == 4 and all(title for _, title in meaningful)
    assert not re.search(r"<th(?![^>]*scope=)[ >]", html)


def test_several_tasks_are_listed_first_and_linked(single, pooled):
    html = render([(single, {}), (pooled, {})], "en")
    assert "All tasks at a glance" in html and "All tasks at a glance" not in render([(single, {})], "en")
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert targets == set(re.findall(r'<article id="([^"]+)"', html)) and len(targets) == 2


def test_the_same_evaluation_gives_the_same_bytes_and_is_left_alone(pooled):
    before = json.dumps(pooled)
    first = render([(pooled, {})], "ja")
    assert render([(json.loads(before), {})], "ja") == first
    assert json.dumps(pooled) == before


def test_nothing_to_show_another_schema_and_another_language_are_refused(single):
    with pytest.raises(RunError, match="name at least one finished run"):
        render([], "en")
    with pytest.raises(CheckpointError, match="schema 2 cannot be shown"):
        render([(single | {"schema": 2}, {})], "en")
    with pytest.raises(SpecError, match="language 'fr'"):
        render([(single, {})], "fr")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_where_time_and_memory_went_is_shown_where_it_was_asked_for(single, language):
    words = read_words(language)
    plain = render([(single, {})], language)
    assert words("training.stages") not in plain and words("stage.training") not in plain
    profiled = copy.deepcopy(single)
    profiled["cost"]["stages"] = [
        {"stage": name, "seconds": seconds, "peak_memory_bytes": 1_000_000 * peak}
        for name, seconds, peak in (("start-up", 1.0, 7), ("training", 3.0, 8), (HOSTILE, 4.0, 9))
    ]
    html = render([(profiled, {})], language)
    table = re.search(rf"<caption>{words('training.stages')}</caption>.*?</table>", html, re.S)[0]
    rows = [unescape(row) for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", table, re.S)]
    named = (words("stage.start-up"), words("stage.training"), HOSTILE)
    for row, name, place, cells in zip(
        rows, named, (("0.00", "12.50"), ("12.50", "37.50"), ("50.00", "50.00")),
        (("1.0", "12.5", "7.0"), ("3.0", "37.5", "8.0"), ("4.0", "50.0", "9.0")), strict=True,
    ):  # fmt: skip
        assert row.startswith(name)
        assert f'x="{place[0]}%" y="2" width="{place[1]}%"' in row
        assert tuple(re.findall(r"<td>([\d.]+)", row)) == cells
    assert words("training.stages_note") in html
    Outline(html)
    without = html.replace(
        html[html.rindex("<table", 0, html.index(table)) : html.index(words("training.stages_note"))], ""
    )
    assert without.replace(f"{words('training.stages_note')}</p>\n", "", 1) == plain
