import pytest

from kusabi.recipes.evaluation_record import asked_digest
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
