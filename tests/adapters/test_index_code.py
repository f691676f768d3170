import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.index_code import decode, encode
from kusabi.errors import CheckpointError

POSITIONS = st.sets(st.integers(0, 400), max_size=80) | st.sets(st.integers(0, 2**31), max_size=30)


@settings(max_examples=150, deadline=None)
@given(POSITIONS)
def test_decoding_gives_back_what_was_encoded(positions):
    rising = np.array(sorted(positions), dtype=np.int64)
    k, code = encode(rising)
    decoded = decode(code, k, len(rising))
    assert code.dtype == np.uint8 and decoded.dtype == np.int64 and decoded.tolist() == rising.tolist()


def test_coding_takes_few_bytes_an_entry_and_gives_the_bytes_of_the_formula():
    positions = np.cumsum(np.random.default_rng(0).geometric(0.003, 50_000))
    tracemalloc.start()
    k, code = encode(positions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gaps = np.diff(positions, prepend=-1) - 1
    low = "".join("".join(str(gap >> place & 1) for place in range(k)) for gap in gaps.tolist())
    bits = low + "".join("0" * (gap >> k) + "1" for gap in gaps.tolist())
    wanted = int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")
    assert k > 6 and code.tobytes() == wanted and peak < 60 * len(positions)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1])
def test_a_random_support_is_within_five_percent_of_its_entropy(density):
    positions = np.flatnonzero(np.random.default_rng(0).random(1_000_000) < density)
    _, code = encode(positions)
    entropy = -math.log2(density) - (1 - density) / density * math.log2(1 - density)
    assert 8 * len(code) / len(positions) < 1.05 * entropy


@pytest.mark.parametrize("positions", [[3, 3], [4, 2], [-1, 2]])
def test_positions_that_do_not_rise_from_zero_are_refused(positions):
    with pytest.raises(ValueError, match="rise"):
        encode(np.array(positions))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(-2, 40), st.integers(-2, 50) | st.just(2**62))
def test_hostile_bytes_are_refused_or_are_rising_positions(code, k, count):
    try:
        positions = decode(np.frombuffer(code, np.uint8), k, count)
    except CheckpointError as refusal:
        assert "index code is damaged" in str(refusal)
    else:
        assert len(positions) == count and bool((np.diff(positions, prepend=-1) > 0).all())


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 5000), min_size=1, max_size=40), st.data())
def test_a_code_that_is_cut_lengthened_or_miscounted_is_refused(positions, data):
    k, code = encode(np.array(sorted(positions)))
    cut = data.draw(st.integers(0, len(code) - 1))
    for damaged in (code[:cut], np.append(code, np.uint8(0)), np.append(code, np.uint8(255))):
        with pytest.raises(CheckpointError, match="damaged"):
            decode(damaged, k, len(positions))
    for count in (0, len(positions) - 1, len(positions) + 1, 10**6):
        with pytest.raises(CheckpointError, match="damaged"):
            decode(code, k, count)
