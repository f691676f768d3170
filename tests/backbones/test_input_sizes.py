import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.backbones.input_sizes import InputSizes
from kusabi.errors import BackboneError


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 2000))
def test_multiples_of_the_patch_size_are_taken_and_others_told_their_neighbours(step, size):
    sizes = InputSizes(own=384, step=step, resizing="flag")
    if size % step == 0 or size == 384:
        sizes.check(size, "here")
    else:
        with pytest.raises(BackboneError) as raised:
            sizes.check(size, "here")
        assert f"{size // step * step + step}" in str(raised.value)


def test_the_models_own_size_is_taken_even_when_patches_do_not_fill_it():
    InputSizes(own=384, step=14, resizing="flag").check(384, "here")


def test_the_message_names_the_place_both_neighbours_and_the_own_size():
    with pytest.raises(BackboneError) as raised:
        InputSizes(own=224, step=14, resizing="built in").check(100, "some/model")
    assert str(raised.value) == (
        "some/model: input size 100 is not a multiple of the patch size 14; choose 98 or 112 "
        "(the model's own size is 224)"
    )


@pytest.mark.parametrize("size", [0, 5, -14])
def test_less_than_one_patch_is_refused(size):
    with pytest.raises(BackboneError, match="input size"):
        InputSizes(own=224, step=14, resizing="flag").check(size, "here")
