import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kusabi.data.augmentation import LONGEST, augmented
from kusabi.errors import DataError


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def array(image):
    return np.asarray(image, np.float64)


@pytest.mark.parametrize("kind", ["none", "safe", "strong"])
def test_view_0_is_the_picture_itself(kind):
    image = noise(2000, 3)
    assert augmented(image, kind, 5, "d", 0) is image


def test_every_view_of_kind_none_is_the_picture_itself():
    image = noise(9, 9)
    assert augmented(image, "none", 0, "d", 3) is image


@pytest.mark.parametrize("kind", ["safe", "strong"])
def test_a_view_is_a_pure_function_of_seed_digest_and_number(kind):
    image = noise(40, 30)
    before = image.tobytes()
    one = augmented(image, kind, 1, "d", 2)
    np.random.default_rng(0).random(10)
    assert one.tobytes() == augmented(image.copy(), kind, 1, "d", 2).tobytes()
    others = [augmented(image, kind, *key) for key in [(2, "d", 2), (1, "e", 2), (1, "d", 3)]]
    assert len({one.tobytes(), before, *(other.tobytes() for other in others)}) == 5
    assert image.tobytes() == before


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["safe", "strong"]), st.integers(0, 10**6))
def test_every_size_works_and_keeps_its_shape(width, height, kind, seed):
    view = augmented(noise(width, height), kind, seed, "d", 1)
    assert view.mode == "RGB" and view.size == (width, height)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(0, 255)] * 3))
def test_safe_views_bring_in_no_foreign_colour(seed, colour):
    view = augmented(Image.new("RGB", (31, 20), colour), "safe", seed, "d", 1)
    assert view.getcolors() == [(31 * 20, colour)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_safe_views_move_a_point_a_little_and_never_mirror(seed):
    # A ramp of place: the colour of a pixel tells where it came from.
    places = np.linspace(0, 240, 121)
    ramp = np.stack([*np.meshgrid(places, places), np.zeros((121, 121))], axis=2)
    view = array(augmented(Image.fromarray(ramp.round().astype(np.uint8)), "safe", seed, "d", 1))
    for channel, line in ((0, view[60, :, 0]), (1, view[:, 60, 1])):
        inner = line[20:101]
        scale = 160 / (inner[-1] - inner[0])
        assert 0.88 <= scale <= 1.12, channel
        assert abs(line[60] - 120) <= 0.06 * 242 + 3
        assert (np.diff(line) >= -1).all()


def test_safe_views_use_the_whole_of_their_range():
    ramp = Image.fromarray(np.tile(np.linspace(0, 250, 126, dtype=np.uint8)[None, :, None], (5, 1, 3)))
    centres = [array(augmented(ramp, "safe", seed, "d", 1))[2, 62, 0] - 125 for seed in range(200)]
    assert min(centres) < -10 and max(centres) > 10 and abs(np.mean(centres)) < 3


def test_strong_views_mirror_both_ways_and_change_colours():
    quarter = np.full((40, 40, 3), 100, np.uint8)
    quarter[:20, :20] = (250, 30, 30)
    corners = set()
    shades = []
    for seed in range(60):
        view = array(augmented(Image.fromarray(quarter), "strong", seed, "d", 1))
        reddest = np.unravel_index((view[..., 0] - view[..., 1])[[0, 0, -1, -1], [0, -1, 0, -1]].argmax(), (2, 2))
        corners.add(tuple(map(int, reddest)))
        shades.append(np.median(view[..., 2]))
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert np.ptp(shades) > 30


@pytest.mark.parametrize("kind", ["safe", "strong"])
def test_big_pictures_are_reduced_first(kind):
    assert augmented(Image.new("RGB", (4 * LONGEST, LONGEST)), kind, 0, "d", 1).size == (LONGEST, LONGEST // 4)
    assert augmented(Image.new("RGB", (1, 3 * LONGEST)), kind, 0, "d", 1).size == (1, LONGEST)


def test_an_unknown_kind_is_refused():
    with pytest.raises(DataError, match="'wild' is not known; choose none, safe, strong"):
        augmented(noise(2, 2), "wild", 0, "d", 0)
