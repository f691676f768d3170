import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.data.prompts import class_prompts
from kusabi.errors import DataError

WORDS = st.text(min_size=1).filter(lambda text: text.replace("_", " ").replace("-", " ").strip())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=5, unique=True),
    st.lists(
        st.tuples(st.text(), st.text()).filter(
            lambda p: "{}" not in p[0] + p[1] and (p[0] + "{}" + p[1]).count("{}") == 1
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_every_template_holds_the_words_of_every_class(classes, sides):
    templates = [before + "{}" + after for before, after in sides]
    prompts = class_prompts(classes, templates, {})
    assert len(prompts) == len(classes)
    for name, sentences in zip(classes, prompts, strict=True):
        words = " ".join(name.replace("_", " ").replace("-", " ").split())
        assert sentences == tuple(before + words + after for before, after in sides)


@settings(max_examples=80, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5, unique=True))
def test_defaults_give_every_class_a_prompt_that_holds_its_words(classes):
    for name, sentences in zip(classes, class_prompts(classes, None, {}), strict=True):
        words = " ".join(name.replace("_", " ").replace("-", " ").split())
        assert sentences[0] == words and all(words in sentence for sentence in sentences)


@settings(max_examples=60, deadline=None)
@given(st.text().filter(lambda text: text.count("{}") != 1))
def test_a_template_without_exactly_one_place_is_refused(template):
    with pytest.raises(DataError, match=r"exactly one \{\}"):
        class_prompts(["a"], ["a photo of a {}", template], {})


def test_latin_names_get_an_english_sentence_too():
    assert class_prompts(["hot_spot", "Riß-tief"], None, {}) == (
        ("hot spot", "a photo of a hot spot"),
        ("Riß tief", "a photo of a Riß tief"),
    )
    assert class_prompts(["A7"], None, {}) == (("A7", "a photo of a A7"),)
    assert class_prompts(["１２３"], None, {})[0][0] == "１２３"


def test_japanese_names_stand_alone():
    for name in ("傷のあるタイル", "ガラス", "きず", "A7の傷", "ｷｽﾞ"):
        assert class_prompts([name], None, {}) == ((name,),)


def test_names_come_first_and_are_taken_as_they_are():
    prompts = class_prompts(["A7", "B2"], None, {"A7": "semi-matt tile", "B2": "傷のあるタイル"})
    assert prompts == (("semi-matt tile", "a photo of a semi-matt tile"), ("傷のあるタイル",))


def test_names_find_their_class_however_they_are_composed():
    assert class_prompts(["が"], ["{}"], {"\u304b\u3099": "moth"}) == (("moth",),)


def test_names_for_unknown_classes_are_all_named():
    with pytest.raises(DataError, match="do not exist: 'C3', 'D4'; the classes are 'A7', 'B2'"):
        class_prompts(["A7", "B2"], None, {"C3": "x", "A7": "y", "D4": "z"})


def test_a_class_without_words_and_an_empty_list_of_templates_are_refused():
    with pytest.raises(DataError, match="no words for the classes 'A7', '__'"):
        class_prompts(["A7", "__"], None, {"A7": " "})
    with pytest.raises(DataError, match="at least one"):
        class_prompts(["A7"], [], {})


def test_braces_other_than_the_place_stay():
    assert class_prompts(["x"], ["{a} {} }"], {}) == (("{a} x }",),)
