import io
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kusabi.data.picture import FORMATS, SUFFIXES, decode_picture, open_picture, pixel_digest
from kusabi.errors import DataError


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def corners():
    """2 wide, 3 high, every pixel different."""
    return Image.fromarray(np.arange(18, dtype=np.uint8).reshape(3, 2, 3) * 10)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation, size):
    upright = Image.new("RGB", size, "white")
    upright.paste("black", (0, 0, 10, 10))  # the upper left corner, as a person holds it
    turn = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_picture(saved(tmp_path, upright.rotate(turn, expand=True), f"a.{suffix}", exif=exif))
    assert opened.size == size
    assert max(opened.getpixel((3, 3))) < 40
    assert all(
        min(opened.getpixel(at)) > 215 for at in [(size[0] - 4, 3), (3, size[1] - 4), (size[0] - 4, size[1] - 4)]
    )


def test_mirrored_orientations_are_applied_too(tmp_path):
    for orientation, flip in [(2, Image.Transpose.FLIP_LEFT_RIGHT), (5, Image.Transpose.TRANSPOSE)]:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path, corners().transpose(flip), "a.png", exif=exif)
        assert pixels(open_picture(path)) == pixels(corners())


def test_exif_data_that_cannot_be_read_are_ignored(tmp_path):
    path = saved(tmp_path, corners(), "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08garbage")
    assert pixels(open_picture(path)) == pixels(corners())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),  # 8 bits stored in 16
        ([0, 256, 4095], [0, 16, 255]),  # a 12-bit camera
        ([0, 4096, 65535], [0, 16, 255]),
        ([255, 511, 1000], [15, 31, 62]),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_divided_by_what_its_maximum_needs(tmp_path, suffix, values, expected):
    path = saved(tmp_path, Image.fromarray(np.array([values], np.uint16)), f"a.{suffix}")
    assert pixels(open_picture(path)) == [[[v] * 3 for v in expected]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.9, 255.0], [0, 128, 255]),
        ([0.0, 4096.0, 65535.0], [0, 16, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
        ([np.nan, 0.2, 1.0], [51, 51, 255]),
        ([np.inf, -np.inf, np.nan], [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
    ],
)
def test_float_tiffs_are_scaled_by_the_stated_rule(tmp_path, values, expected):
    path = saved(tmp_path, Image.fromarray(np.array([values], np.float32)), "a.tiff")
    assert pixels(open_picture(path)) == [[[v] * 3 for v in expected]]


def test_integers_below_zero_stretch_the_own_range(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[-100, 0, 100]], np.int32)), "a.tif")
    assert pixels(open_picture(path)) == [[[0] * 3, [128] * 3, [255] * 3]]


def test_transparency_of_every_kind_is_laid_on_white(tmp_path):
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half.putpixel((1, 0), (200, 0, 0, 255))
    white_and_red = [[[255] * 3, [200, 0, 0]]]
    assert pixels(open_picture(saved(tmp_path, half, "alpha.png"))) == white_and_red
    assert pixels(open_picture(saved(tmp_path, half, "alpha.webp", lossless=True))) == white_and_red
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    for name in ("palette.png", "palette.gif"):
        assert pixels(open_picture(saved(tmp_path, palette, name, transparency=0))) == white_and_red
    several = saved(tmp_path, palette, "several.png", transparency=bytes([0, 255]))
    assert pixels(open_picture(several)) == white_and_red
    grey = Image.new("LA", (2, 1), (50, 255))
    grey.putpixel((1, 0), (50, 0))
    assert pixels(open_picture(saved(tmp_path, grey, "grey.png"))) == [[[50] * 3, [255] * 3]]
    colour = saved(tmp_path, corners(), "colour.png", transparency=(0, 10, 20))
    assert pixels(open_picture(colour))[0] == [[255] * 3, [30, 40, 50]]
    deep = Image.fromarray(np.array([[300, 65535]], np.uint16))
    assert pixels(open_picture(saved(tmp_path, deep, "deep.png", transparency=300))) == [[[255] * 3] * 2]


def test_half_transparent_red_on_white_is_pink(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "a.png")
    assert pixels(open_picture(path)) == [[[255, 127, 127]]]


def test_other_colour_modes_become_rgb(tmp_path):
    cmyk = open_picture(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=95))
    red, green, blue = cmyk.getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15
    assert pixels(open_picture(saved(tmp_path, Image.new("CMYK", (1, 1), (0, 0, 255, 0)), "a.tif"))) == [
        [[255, 255, 0]]
    ]
    assert pixels(open_picture(saved(tmp_path, Image.new("L", (1, 1), 77), "grey.png"))) == [[[77] * 3]]
    assert pixels(open_picture(saved(tmp_path, Image.new("1", (1, 1), 1), "bit.png"))) == [[[255] * 3]]
    assert pixels(open_picture(saved(tmp_path, corners().quantize(6), "palette.bmp"))) == pixels(corners())


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_animations_and_multi_page_files_give_their_first_page(tmp_path, name):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path, pages[0], name, save_all=True, append_images=pages[1:], lossless=True)
    assert open_picture(path).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_any_shape_works(tmp_path, size):
    opened = open_picture(saved(tmp_path, Image.new("RGB", size, (1, 2, 3)), "a.png"))
    assert opened.size == size and opened.getpixel((0, 0)) == (1, 2, 3)


def test_a_decompression_bomb_is_refused_and_a_big_picture_is_not(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (30, 10)), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # 300 pixels: Pillow would only warn
    assert open_picture(path).size == (30, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 149)
    with pytest.raises(DataError, match=r"a\.png: too many pixels; scale the picture down"):
        open_picture(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp"])
def test_truncated_pictures_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix}: .+; save the picture again from its original, or remove it"):
        open_picture(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"not a picture at all", "not a picture"), (b"\x89PNG\r\n\x1a\ngarbage", "damaged")],
)
def test_files_that_are_no_pictures_are_refused(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as refusal:
        open_picture(path)
    assert str(path) in str(refusal.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png: no such file; check the path"):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="a folder; give the pictures in it"):
        open_picture(tmp_path)


def test_formats_that_run_other_programs_are_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not a picture in a format"):
        open_picture(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]))
def test_damaged_bytes_give_a_picture_or_a_data_error_and_nothing_else(seed, kind):
    random = np.random.default_rng(seed)
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(stream, kind)
    content = np.frombuffer(stream.getvalue(), np.uint8).copy()
    content[random.integers(0, len(content), 6)] = random.integers(0, 256, 6)
    try:
        decode_picture(io.BytesIO(content.tobytes()))
    except DataError as error:
        assert str(error)


def test_warnings_of_pillow_stay_inside_and_the_filters_come_back(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (30, 10)), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [open_picture(path) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning):
        warnings.warn("still an error", stacklevel=1)


def test_the_digest_is_of_pixels_and_shape_not_of_the_file(tmp_path):
    image = corners()
    digests = {pixel_digest(open_picture(saved(tmp_path, image, name))) for name in ("a.png", "a.bmp", "a.tif")}
    assert digests == {pixel_digest(image)} and len(digests.pop()) == 64
    wide, high = Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2))
    assert wide.tobytes() == high.tobytes() and pixel_digest(wide) != pixel_digest(high)


def test_every_suffix_belongs_to_a_format_that_is_read():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES if suffix in known} - {"MPO"} <= set(FORMATS)
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"} <= SUFFIXES <= set(known)
