import pytest

from kusabi.data.dataset import Example
from kusabi.data.split import Folds, Split
from kusabi.recipes.evaluation_record import asked_digest, grouped, judging
from kusabi.spec import AdaptSpec

ALIKE = [{"seed": 7}, {"backbone": {"backbone": "./mini", "revision": "main"}}, {"training": {"checkpoint_every": 9}}]
OTHER = [
    {"backbone": {"input_size": 32}},
    {"data": {"templates": ["a {}"]}},
    {"adapter": {"blend": 0.5}},
    {"adapter": {"placement": "vision:1:*"}},
    {"safety": {"alpha": 1.0}},
]


@pytest.mark.parametrize("change", ALIKE)
def test_specs_that_differ_in_their_seed_or_in_where_the_model_lies_ask_the_same(change):
    assert asked_digest(AdaptSpec.model_validate(change)) == asked_digest(AdaptSpec())


def test_specs_that_differ_in_anything_else_ask_something_else():
    digests = [asked_digest(AdaptSpec.model_validate(change)) for change in ({}, *OTHER)]
    assert len(set(digests)) == len(digests)


def test_groups_of_the_pictures_that_judge_are_counted_where_there_are_any():
    lots = [Example(f"{i}.png", 0, lot, str(i)) for i, lot in enumerate(("a", "a", "b", None))]
    splits = Split((), tuple(lots), "", ()), Folds(tuple(lots), (), "", ())
    assert [grouped(judging(split)) for split in splits] == [{"query_groups": 3, "intervals_by": "groups"}] * 2
    assert grouped(lots[3:]) == {}
