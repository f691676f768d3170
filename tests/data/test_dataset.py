from dataclasses import FrozenInstanceError, replace

import pytest

from kusabi.data.dataset import Dataset, Example


def made(**changes):
    train = (Example("a/1.png", 0, None, "d1"), Example("b/2.png", 1, None, "d2"))
    fields = {"name": "n", "classes": ("a", "b"), "train": train, "test": (), "notes": (), "place": "/p", "read": None}
    return Dataset(**{**fields, **changes})


def test_the_digest_changes_with_every_part_of_the_content():
    one = made()
    train = one.train
    others = [
        made(classes=("a", "c")),
        made(train=train[:1]),
        made(train=train[:1], test=train[1:]),
        made(train=(replace(train[0], file="a/9.png"), train[1])),
        made(train=(replace(train[0], label=1), train[1])),
        made(train=(replace(train[0], digest="d9"), train[1])),
        made(train=(replace(train[0], group="lot 1"), train[1])),
        made(train=(replace(train[0], group="lot 2"), train[1])),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 9


def test_the_digest_without_groups_stays_the_same_from_release_to_release():
    assert made().digest == "4a9729e5ff8b282ae346f303bff2de1b5fba108358986055b8b1de8f9ad7a53e"


def test_the_ungrouped_digest_is_that_of_the_same_pictures_read_without_groups():
    grouped = made(train=tuple(replace(one, group="lot") for one in made().train))
    assert grouped.ungrouped_digest == made().ungrouped_digest == made().digest != grouped.digest


def test_the_digest_does_not_depend_on_where_the_data_are():
    assert made(name="m", place="/q", notes=("x",)).digest == made().digest


def test_values_are_frozen():
    with pytest.raises(FrozenInstanceError):
        made().name = "other"
    with pytest.raises(FrozenInstanceError):
        made().train[0].label = 1
