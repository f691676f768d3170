"""Blocks made ahead: in order, all of them, one block early, and no further than an error."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kusabi.data.ahead import made_ahead


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=6))
def test_everything_comes_in_order(blocks):
    assert list(made_ahead(lambda item: item + 1, blocks)) == [[item + 1 for item in block] for block in blocks]


def test_the_next_block_is_made_while_one_is_used_and_no_other():
    begun: list[int] = []
    second = threading.Event()

    def make(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
        return item

    made = made_ahead(make, [[0], [1], [2]])
    assert next(made) == [0]
    assert second.wait(10), "nothing was begun ahead"
    assert 2 not in begun
    made.close()
    assert 2 not in begun


def test_an_error_comes_where_its_block_is_due_and_ends_it():
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("damaged")
        return item

    made = made_ahead(make, [[0], [1], [2], [3]])
    assert next(made) == [0]
    with pytest.raises(ValueError, match="damaged"):
        next(made)
    assert 2 not in begun
    assert list(made) == []
