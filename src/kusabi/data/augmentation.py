"""Views of a picture, each a pure function of (seed, pixels, number).

``safe`` keeps what a label of inspection rests on: no mirror, no colour, nothing cut away but a narrow edge. A scratch
that only counts on the left, or a stain known by its hue, stays what it is.
"""

import hashlib
import math
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageEnhance

from kusabi.errors import DataError

Augment = Literal["none", "safe", "strong"]

SHIFT = 0.06  # of each side, either way
SCALE = (0.9, 1.1)
CROP = (1.0, 1.6)  # strong: enlargement; what no longer fits is cut off
COLOUR = (0.7, 1.3)  # strong: factors of brightness, contrast and saturation
LONGEST = 1024  # pixels; views of bigger pictures are made from a reduced copy, so that their cost is bounded

_BICUBIC = Image.Resampling.BICUBIC


def augmented(image: Image.Image, kind: str, seed: int, digest: str, view: int) -> Image.Image:
    """View number ``view`` of a picture, RGB; view 0 is the picture itself, as is every view of kind ``none``.

    ``safe``: shifted by at most ``SHIFT`` of each side and scaled by ``SCALE``, the edge pixels repeated where the
    picture does not reach. ``strong``: enlarged by ``CROP`` at any place, mirrored either way, colours changed by
    ``COLOUR``. Both keep the shape (at most ``LONGEST`` pixels a side).

    Args:
        image: RGB; left as it is.
        kind: ``none``, ``safe`` or ``strong``.
        seed: Of all views.
        digest: Of the picture's pixels.
        view: 0, 1, 2, ...

    Raises:
        DataError: If the kind is unknown.
    """
    if kind not in get_args(Augment):
        raise DataError(f"augmentation '{kind}' is not known; choose {', '.join(get_args(Augment))}")
    if view == 0 or kind == "none":
        return image
    key = hashlib.sha256(f"{seed} {digest} {view}".encode()).digest()
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16])))
    image = _reduced(image)
    return _safe(image, random) if kind == "safe" else _strong(image, random)


def _reduced(image: Image.Image) -> Image.Image:
    factor = LONGEST / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), _BICUBIC, reducing_gap=2.0)


def _safe(image: Image.Image, random: np.random.Generator) -> Image.Image:
    scale = random.uniform(*SCALE)
    across, down = random.uniform(-SHIFT, SHIFT, 2)
    reach = SHIFT + (1 / SCALE[0] - 1) / 2  # how far the window can stick out, as a share of the side
    side, top = (math.ceil(reach * length) for length in image.size)
    framed = Image.fromarray(np.pad(np.asarray(image), ((top, top), (side, side), (0, 0)), mode="edge"))
    width, height = image.width / scale, image.height / scale
    left, upper = (framed.width - width) / 2 + across * image.width, (framed.height - height) / 2 + down * image.height
    return framed.resize(image.size, _BICUBIC, box=(left, upper, left + width, upper + height))


def _strong(image: Image.Image, random: np.random.Generator) -> Image.Image:
    scale = random.uniform(*CROP)
    width, height = image.width / scale, image.height / scale
    left, upper = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    flips, colours = random.random(2), random.uniform(*COLOUR, 3)
    image = image.resize(image.size, _BICUBIC, box=(left, upper, left + width, upper + height))
    for flip, mirror in zip(flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM), strict=True):
        image = image.transpose(mirror) if flip < 0.5 else image
    for factor, change in zip(
        colours, (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), strict=True
    ):
        image = change(image).enhance(factor)
    return image
