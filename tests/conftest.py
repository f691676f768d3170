import random

import pytest
from PIL import Image, ImageDraw

pytest_plugins = ("tests.tiny_models",)

KINDS = ("plain", "barred", "dotted")


def tile(kind, seed, side=48):
    """A small grey tile: plain, with a bar, or with a dot."""
    draw = random.Random(f"{kind}/{seed}")
    shade = draw.randint(120, 200)
    image = Image.new("RGB", (side, side), (shade, shade, shade))
    pen = ImageDraw.Draw(image)
    if kind == "barred":
        top = draw.randint(8, side - 14)
        pen.rectangle((0, top, side, top + 5), fill=(20, 20, 20))
    if kind == "dotted":
        x, y = draw.randint(8, side - 16), draw.randint(8, side - 16)
        pen.ellipse((x, y, x + 9, y + 9), fill=(220, 30, 30))
    for _ in range(30):
        image.putpixel((draw.randrange(side), draw.randrange(side)), (draw.randrange(256),) * 3)
    return image


@pytest.fixture
def tiles(tmp_path):
    """Write a folder of tiles: ``tiles(train=6, test=8)`` with class folders named ``names``."""

    def write(train=6, test=8, names=("A1", "B2", "C3"), name="tiles", seed=0):
        root = tmp_path / name
        for split, count in (("train", train), ("test", test)):
            for kind, label in zip(KINDS, names, strict=True):
                place = root / split / label if test else root / label
                place.mkdir(parents=True, exist_ok=True)
                for i in range(count):
                    tile(kind, f"{seed}/{split}/{i}").save(place / f"{split}-{i:02}.png")
        return root

    return write
