import zlib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def draw():
    """Write a tiny picture of noise, different for every (parent's name, own name), or for every seed given."""

    def write(path, seed=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        key = zlib.crc32("/".join(path.parts[-3:]).encode()) if seed is None else seed
        Image.fromarray(np.random.default_rng(key).integers(0, 256, (5, 4, 3), np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path, draw):
    """Pictures at the given paths below a folder."""

    def make(*files, root="tiles"):
        for file in files:
            draw(tmp_path / root / file)
        return tmp_path / root

    return make
