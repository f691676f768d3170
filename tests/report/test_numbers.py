import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.report import numbers
from kusabi.report.words import read_words

WORDS = read_words("en")
JAPANESE = read_words("ja")


def plain(text):
    return text.replace("\u00a0", " ").replace("−", "-")


@pytest.mark.parametrize("write", numbers.FORMATS)
def test_what_is_not_known_is_a_dash(write):
    if write is not numbers.points_range:
        assert write(WORDS, None) == "–"


@given(st.floats(-1, 1))
@settings(deadline=None, max_examples=60)
def test_a_signed_difference_reads_back_and_never_hides_its_side(value):
    written = plain(numbers.signed(value))
    assert float(written) / 100 == pytest.approx(value, abs=0.0005 + 1e-9)
    if abs(value) >= 0.0005:
        assert (float(written) > 0) == (value > 0) and written[0] in "+-"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.1234, "+12.3"), (-0.0312, "-3.1"), (0.0, "0.0"), (1e-17, "0.0"), (0.0004, "+0.04"), (-0.0004, "-0.04")],
)
def test_differences_are_points_with_a_sign(value, written):
    assert plain(numbers.signed(value)) == written


@pytest.mark.parametrize(
    ("interval", "written"),
    [
        ([0.091, 0.154], "9.1 to 15.4"),
        ([-0.02, 0.031], "-2.0 to +3.1"),
        ([-0.05, -0.01], "-5.0 to -1.0"),
        ([0.0, 0.0], "0.0 to 0.0"),
    ],
)
def test_an_interval_shows_signs_where_they_matter(interval, written):
    assert plain(numbers.points_range(WORDS, interval)) == written


def test_shares_are_percent_in_both_languages():
    assert plain(numbers.percent(WORDS, 0.7467)) == "74.7 %" and numbers.percent(JAPANESE, 0.7467) == "74.7%"
    assert plain(numbers.accuracy_range(WORDS, [0.5, 0.625])) == "50.0 to 62.5 %"
    assert numbers.accuracy_range(JAPANESE, [0.5, 0.625]) == "50.0〜62.5%"
    assert plain(numbers.size_in_points(WORDS, 0.034)) == "3.4 points"


@pytest.mark.parametrize(
    ("share", "written"), [(0.005, "0.5 %"), (0.0017564, "0.176 %"), (3.2e-8, "0.0000032 %"), (1, "100 %")]
)
def test_small_shares_keep_three_digits_and_no_exponent(share, written):
    assert plain(numbers.small_percent(WORDS, share)) == written


@pytest.mark.parametrize(
    ("seconds", "written"), [(12.34, "12.3 s"), (59.96, "1 min 0 s"), (192, "3 min 12 s"), (3900, "1 h 5 min")]
)
def test_durations_grow_their_units(seconds, written):
    assert plain(numbers.duration(WORDS, seconds)) == written


@pytest.mark.parametrize(("size", "written"), [(2345, "2.3 kB"), (48e6, "48.0 MB"), (1.5e9, "1.5 GB")])
def test_bytes_are_thousands(size, written):
    assert plain(numbers.volume(WORDS, size)) == written


@pytest.mark.parametrize(("p", "written"), [(0.0004, "< 0.001"), (0.0468, "0.047"), (1.0, "1.000")])
def test_a_tiny_probability_is_not_zero(p, written):
    assert numbers.probability(WORDS, p) == written
