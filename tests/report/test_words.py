import re
from string import Formatter

import pytest

from kusabi.errors import SpecError
from kusabi.report.words import LANGUAGES, read_words


def placeholders(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_things_with_the_same_placeholders(language):
    english, other = read_words("en").texts, read_words(language).texts
    assert list(other) == list(english)
    assert {key: placeholders(text) for key, text in other.items()} == {
        key: placeholders(text) for key, text in english.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_but_the_gap_between_sentences(language):
    assert [key for key, text in read_words(language).texts.items() if not text] in ([], ["number.gap"])


def test_japanese_sentences_are_japanese():
    words = read_words("ja").texts
    sentences = [text for key, text in words.items() if key.split(".")[0] in ("verdict", "peer", "other", "advice")]
    assert all(re.search("[ぁ-んァ-ヶ一-龠]", text) for text in sentences)
    assert "スパースアダプター" in words["glossary.adapter.term"] and "信頼区間" in words["verdict.evidence"]


def test_an_unknown_language_is_refused_by_name():
    with pytest.raises(SpecError, match="language 'fr' is not known; choose one of: en, ja"):
        read_words("fr")


def test_a_value_without_a_word_stands_for_itself():
    words = read_words("en")
    assert words.name("rule", "random") == "at random"
    assert words.name("rule", "by <dice>") == "by <dice>"
    assert words.name("rule", None) == "–"


def test_one_thing_is_singular():
    words = read_words("en")
    assert (words.amount("pictures", 1), words.amount("pictures", 1200)) == ("1 picture", "1,200 pictures")
