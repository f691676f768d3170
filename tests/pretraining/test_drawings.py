import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining.drawings import (
    GROUPS,
    any_inspection,
    caption_of,
    draw_inspection,
    texture_captions,
    turned,
    turned_direction,
)
from pretraining.phrases import COLOURS, DEFECTS, SHAPES, TEXTURES
from pretraining.shapes import RGB, any_shape, draw_shape, plural
from pretraining.surfaces import DIRECTIONS

seeds = st.integers(0, 2**31)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_seed_draws_the_same_picture_again(seed: int):
    for first, second in zip(draw_inspection(any_inspection(seed)), draw_inspection(any_inspection(seed)), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(draw_shape(any_shape(seed)), draw_shape(any_shape(seed)))


@given(seeds)
@settings(deadline=None)
def test_captions_say_what_the_parameters_are(seed: int):
    shape = any_shape(seed)
    noun = shape.shape if shape.number == 1 else plural(shape.shape)
    assert shape.caption.endswith(f" {shape.colour} {noun}")
    inspection = any_inspection(seed)
    assert inspection.surface.kind in inspection.caption
    assert inspection.caption in texture_captions()
    assert (inspection.defect is not None) == (seed % 2 == 1)
    assert inspection.defect is None or inspection.defect in inspection.caption


@given(seeds)
@settings(deadline=None)
def test_labels_are_classes_of_their_groups(seed: int):
    for label, classes in zip(any_inspection(seed).labels, GROUPS.values(), strict=True):
        assert -1 <= label < classes


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_only_defective_pictures_have_a_marked_place(seed: int):
    pixels, patches = draw_inspection(any_inspection(seed))
    assert pixels.shape == (224, 224)
    assert pixels.dtype == np.uint8
    assert patches.shape == (16, 16)
    if seed % 2 == 0:
        assert not patches.any()


def test_neighbouring_seeds_share_the_surface():
    assert any_inspection(10).surface == any_inspection(11).surface


@given(st.integers(0, 7))
def test_orientation_labels_turn_with_the_picture(turn: int):
    y, x = np.mgrid[:64, :64]
    for direction in range(DIRECTIONS):
        angle = direction * np.pi / DIRECTIONS
        stripes = np.sin(-x * np.sin(angle) + y * np.cos(angle))  # constant along the angle
        after = turned(stripes, turn)
        gy, gx = np.gradient(after)
        double = np.arctan2(2 * (gx * gy).mean(), (gx**2 - gy**2).mean()) / 2 + np.pi / 2
        assert round(double / (np.pi / DIRECTIONS)) % DIRECTIONS == turned_direction(direction, turn)
    assert turned_direction(-1, turn) == -1


def test_every_word_has_a_drawing_and_a_japanese_side():
    assert set(RGB) == set(COLOURS)
    assert all(ja and not ja.isascii() for table in (COLOURS, SHAPES, TEXTURES, DEFECTS) for ja in table.values())
    assert len(texture_captions()) == len(set(texture_captions()))
    assert caption_of("felt", "hole", 0) == "felt with a hole"
