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
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 7


def test_the_digest_does_not_depend_on_where_the_data_are():
    assert made(name="m", place="/q", notes=("x",)).digest == made().digest


def test_values_are_frozen():
    with pytest.raises(FrozenInstanceError):
        made().name = "other"
    with pytest.raises(FrozenInstanceError):
        made().train[0].label = 1
