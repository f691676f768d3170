import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.optimize import least_squares

from kusabi.evaluation.power_law import EXPONENTS, fit_laws

LABELS = np.array([1.0, 2, 4, 8, 16, 32])
EQUAL = np.ones(len(LABELS))


@hypothesis.given(
    floor=st.floats(0, 0.3), size=st.floats(0.05, 0.6), exponent=st.sampled_from(EXPONENTS.tolist()[20:]),
)  # fmt: skip
def test_a_known_law_is_found_again(floor, size, exponent):
    found = fit_laws(LABELS, floor + size * LABELS**-exponent, EQUAL)
    assert found.floor[0] == pytest.approx(floor, abs=1e-6)
    assert found.size[0] == pytest.approx(size, rel=1e-6)
    assert found.exponent[0] == exponent
    np.testing.assert_allclose(found.errors([64.0])[0], [floor + size * 64.0**-exponent], atol=1e-6)


@hypothesis.given(
    st.lists(st.floats(0, 1), min_size=6, max_size=6), st.lists(st.floats(0.1, 10), min_size=6, max_size=6)
)
@hypothesis.settings(max_examples=30)
def test_no_law_of_the_same_form_fits_better(errors, weights):
    errors, weights = np.array(errors), np.array(weights)
    found = fit_laws(LABELS, errors, weights)
    assert found.floor[0] >= 0 and found.size[0] >= 0

    def misses(p):
        return np.sqrt(weights) * (p[0] + p[1] * LABELS ** -p[2] - errors)

    low, high = [0, 0, EXPONENTS[0]], [2, 2, EXPONENTS[-1]]
    start = np.clip([found.floor[0], found.size[0], found.exponent[0]], np.array(low) + 1e-9, np.array(high) - 1e-9)
    free = least_squares(misses, start, bounds=(low, high))
    assert found.misfit[0] <= 2 * free.cost * 1.02 + 1e-3


def test_many_laws_at_once_are_those_alone():
    random = np.random.default_rng(0)
    errors = random.uniform(0, 1, (5, 6))
    weights = random.uniform(1, 2, 6)
    together = fit_laws(LABELS, errors, weights)
    for row, of_row in enumerate(errors):
        alone = fit_laws(LABELS, of_row, weights)
        assert [alone.floor[0], alone.size[0], alone.exponent[0]] == pytest.approx(
            [together.floor[row], together.size[row], together.exponent[row]]
        )
