import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor

from kusabi.backbones.input_sizes import InputSizes
from kusabi.backbones.preprocessing import Fit, Preprocessing, pixels, read_preprocessing
from kusabi.errors import BackboneError

SIZES = InputSizes(own=32, step=8, resizing="flag")
HALF = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


def preprocessing(size=32, fit: Fit = "pad", resample=3):
    return Preprocessing(size, fit, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), resample)


def picture(width, height, seed=0):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def plain(width, height, colour):
    return Image.new("RGB", (width, height), colour)


def written(folder, fields, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("side", [24, 77, 400])
def test_a_square_picture_becomes_what_the_models_own_processor_makes(tiny, loaded, kind, side):
    image = picture(side, side)
    folder, backbone = tiny(kind), loaded(kind)
    expected = AutoImageProcessor.from_pretrained(folder, backend="pil")([image], return_tensors="pt")["pixel_values"]
    ours = pixels([image], backbone.preprocessing)
    if kind == "siglip2":
        ours = backbone._vision_inputs(ours)["pixel_values"]
    # Far from its size a picture is reduced in two steps, which a person does not see.
    tolerance = 0.2 if side == 400 else 1e-5
    assert ours.shape == expected.shape and (ours - expected).abs().max() < tolerance


def test_padding_shows_the_whole_picture_centred_on_the_mean_colour():
    shown = pixels([plain(64, 16, (255, 0, 0))], preprocessing())[0]
    assert torch.equal(shown[:, :12], torch.zeros(3, 12, 32)) and torch.equal(shown[:, 20:], torch.zeros(3, 12, 32))
    red = torch.tensor([(1 - 0.5) / 0.2, -0.4 / 0.3, -0.3 / 0.4])
    assert torch.allclose(shown[:, 12:20], red[:, None, None].expand(3, 8, 32), atol=1e-5)


def test_cropping_shows_the_central_square_and_squashing_everything():
    image = plain(96, 32, (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 32, 32))
    image.paste((0, 0, 0), (64, 0, 96, 32))
    cropped = pixels([image], preprocessing(fit="crop", resample=0))
    assert (cropped > 0).all()
    squashed = pixels([image], preprocessing(fit="squash", resample=0))
    assert (
        (squashed[0, 0, :, :10] < 0).all()
        and (squashed[0, 0, :, 12:20] > 0).all()
        and (squashed[0, 0, :, 22:] < 0).all()
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["pad", "squash", "crop"]), st.integers(1, 64))
def test_any_picture_fits_any_size_without_ringing_beyond_its_colours(width, height, fit, size):
    shown = pixels([plain(width, height, (200, 100, 50))], preprocessing(size, fit))
    colour = (torch.tensor([200, 100, 50]) / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    assert shown.shape == (1, 3, size, size) and shown.dtype == torch.float32
    painted = (shown[0] - colour[:, None, None]).abs().amax(0) < 1e-4
    assert (painted | (shown[0] == 0).all(0)).all() and painted.any()
    assert painted.all() or fit == "pad"


def test_a_very_long_picture_is_no_memory_bomb():
    image = plain(60_000, 3, (10, 20, 30))
    for fit in ("pad", "squash", "crop"):
        assert pixels([image], preprocessing(fit=fit)).shape == (1, 3, 32, 32)


def test_many_pictures_at_once_are_the_same_as_one_by_one():
    images = [picture(20 + index, 50 - index, index) for index in range(9)]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = pixels(images, preprocessing())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat([pixels([image], preprocessing()) for image in images]))
    assert pixels([], preprocessing()).shape == (0, 3, 32, 32)


def test_plain_data_and_back_is_the_same_value():
    value = preprocessing(fit="crop")
    assert Preprocessing.from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    "fields, size",
    [
        ({"size": 40}, 40),
        ({"size": {"height": 48, "width": 48}}, 48),
        ({"size": {"shortest_edge": 56}}, 56),
        ({"size": {"shortest_edge": 64}, "crop_size": 56, "do_center_crop": True}, 56),
        ({"size": 64, "crop_size": {"height": 56, "width": 56}}, 56),
        ({"size": {"height": 48, "width": 48}, "crop_size": 40, "do_center_crop": False}, 48),
        ({}, 32),
    ],
)
def test_the_size_is_what_the_processor_hands_on(tmp_path, fields, size):
    folder = written(tmp_path, {**HALF, **fields})
    assert read_preprocessing(folder, SIZES, None, "pad").size == size
    assert read_preprocessing(folder, SIZES, 72, "pad").size == 72


def test_the_newer_processor_file_is_read_too(tmp_path):
    folder = written(tmp_path, {"image_processor": {**HALF, "size": 40, "resample": 2}}, "processor_config.json")
    assert read_preprocessing(folder, SIZES, None, "crop") == preprocessing(40, "crop", 2)


@pytest.mark.parametrize(
    "fields, mean, std",
    [
        (HALF, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        ({**HALF, "do_normalize": False}, (0, 0, 0), (1, 1, 1)),
        ({**HALF, "do_rescale": False, "do_normalize": False}, (0, 0, 0), (1 / 255,) * 3),
        ({"image_mean": 0.5, "image_std": 0.5}, (0.5,) * 3, (0.5,) * 3),
        ({**HALF, "rescale_factor": 1 / 127.5}, (0.25, 0.2, 0.15), (0.1, 0.15, 0.2)),
    ],
)
def test_rescaling_and_normalising_are_folded_into_one(tmp_path, fields, mean, std):
    found = read_preprocessing(written(tmp_path, fields), SIZES, None, "pad")
    assert found.mean == pytest.approx(mean) and found.std == pytest.approx(std)


@pytest.mark.parametrize(
    "fields, told",
    [
        ({}, "'image_mean' should be three numbers"),
        ({**HALF, "image_std": [1, 2]}, "'image_std' should be three numbers"),
        ({**HALF, "image_std": [0, 1, 1]}, "makes no sense"),
        ({**HALF, "size": {"height": 40, "width": 48}}, "not one square size; give an input size"),
        ({**HALF, "size": 41}, "input size 41 is not a multiple"),
        ({**HALF, "size": [40, 40]}, "not one square size; give an input size"),
        ({**HALF, "resample": "bicubic"}, "'resample' is 'bicubic', which is none of PIL's numbers 0 to "),
        ({**HALF, "resample": 9}, "'resample' is 9, which"),
        ({**HALF, "resample": [3]}, "'resample' is [3], which"),
        ({**HALF, "rescale_factor": "x"}, "'rescale_factor' is 'x', which is no positive number"),
        ({**HALF, "rescale_factor": [1]}, "'rescale_factor' is [1], which"),
        ({**HALF, "rescale_factor": -1}, "'rescale_factor' is -1, which"),
        ({**HALF, "rescale_factor": float("inf")}, "'rescale_factor' is inf, which"),
        ({**HALF, "rescale_factor": 10**400}, "'rescale_factor' is 1000"),
        ({**HALF, "image_mean": [10**400, 0, 0]}, "'image_mean' should be three numbers"),
    ],
)
def test_what_cannot_be_followed_is_refused_naming_the_file(tmp_path, fields, told):
    with pytest.raises(BackboneError) as raised:
        read_preprocessing(written(tmp_path, fields), SIZES, None, "pad")
    assert str(raised.value).startswith(str(tmp_path)) and told in str(raised.value)


def test_a_folder_without_a_processor_is_refused(tmp_path):
    with pytest.raises(BackboneError, match=r"no preprocessor_config\.json here"):
        read_preprocessing(tmp_path, SIZES, None, "pad")
