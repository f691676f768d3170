import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.corruptions import STRENGTHS, corrupted


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    smooth = np.kron(random.integers(60, 200, (6, 6, 3)), np.ones((16, 16, 1)))
    return Image.fromarray(smooth.astype(np.uint8))


def away(picture, kind, severity):
    worse = corrupted(picture, kind, severity, "digest", 96)
    return float(np.abs(np.asarray(worse, float) - np.asarray(picture, float)).mean())


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_picture_gets_worse_with_the_severity_and_the_same_every_time(kind, picture):
    distances = [away(picture, kind, severity) for severity in range(1, 6)]
    assert distances == sorted(distances) and distances[0] > 0.5 and len(set(distances)) == 5
    first, again = (corrupted(picture, kind, 3, "digest", 96) for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(again))


def test_noise_follows_from_the_picture_and_its_size_is_what_it_says(picture):
    grey = Image.new("RGB", (96, 96), (128, 128, 128))
    one, other = (np.asarray(corrupted(grey, "noise", 1, name, 96), float) for name in "ab")
    assert not np.array_equal(one, other) and abs(one.std() / 255 - 0.08) < 0.005


def test_contrast_keeps_the_mean_and_the_longer_side_is_that_of_the_model(picture):
    wide = picture.resize((200, 100))
    worse = corrupted(wide, "contrast", 5, "digest", 96)
    assert worse.size == (96, 48)
    same = wide.resize((96, 48), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(worse, float).mean((0, 1)) - np.asarray(same, float).mean((0, 1))).max() < 1
