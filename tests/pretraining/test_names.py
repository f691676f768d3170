import pytest
from pretraining.names import caption_of, declared_styles, unjoined


@pytest.mark.parametrize(
    ("name", "declared", "caption"),
    [
        ("traffic-light", frozenset(), "traffic light"),
        ("traffic-light-bold", frozenset({"bold"}), "traffic light"),
        ("arrow-up-24-filled", frozenset(), "arrow up"),
        ("baseline-folder-open", frozenset({"baseline"}), "folder open"),
        ("woman-medium-dark-skin-tone", frozenset(), "woman"),
        ("flag-for-japan", frozenset(), "flag japan"),
        ("paperclip4-duotone", frozenset(), "paperclip"),
        ("google-logo", frozenset(), ""),
        ("x", frozenset(), ""),
    ],
)
def test_a_caption_names_the_thing_and_not_its_style(name: str, declared: frozenset[str], caption: str):
    assert caption_of(name, declared) == caption


def test_cleaning_a_clean_name_changes_nothing():
    assert caption_of("shopping-cart").replace(" ", "-") == "shopping-cart"


def test_declared_styles_are_single_words():
    collection = {"suffixes": {"": "Regular", "line-duotone": "Line Duotone"}, "prefixes": {"round": "Round"}}
    assert declared_styles(collection) == {"line", "duotone", "round"}


def test_run_together_names_get_the_spelling_of_other_sets():
    assert unjoined("videogame", {"videogame": "video game"}) == "video game"
    assert unjoined("apple", {}) == "apple"
