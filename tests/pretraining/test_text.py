import numpy as np
from pretraining.text import BATCH, _rows


def test_a_batch_holds_texts_of_similar_length_and_a_pool_any_length():
    lengths = np.random.default_rng(0).integers(3, 64, size=20_000)
    spreads = [np.ptp(lengths[_rows(lengths, 0, step)]) for step in range(16)]
    assert max(spreads) < 16
    assert {int(length) for step in range(16) for length in lengths[_rows(lengths, 0, step)]} == set(range(3, 64))


def test_rows_are_a_function_of_seed_and_step():
    lengths = np.arange(5000) % 50
    assert np.array_equal(_rows(lengths, 1, 7), _rows(lengths, 1, 7)) and len(_rows(lengths, 1, 7)) == BATCH
    assert not np.array_equal(_rows(lengths, 1, 7), _rows(lengths, 2, 7))
