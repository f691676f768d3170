import numpy as np
import pytest
from PIL import Image

from kusabi.adapters.targets import plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.data.dataset import Dataset, Example
from kusabi.spec import AdapterSpec


@pytest.fixture(scope="session")
def backbone():
    return load_backbone("mini", input_size=84)


def picture(file):
    """A flat picture whose colour is the class: ``1/4`` is picture 4 of class 1."""
    label, number = map(int, file.split("/"))
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 40, size=(84, 84, 3), dtype=np.uint8)
    pixels[..., label] += 150
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def dataset():
    examples = tuple(Example(f"{c}/{i}", c, None, f"{c}{i}".ljust(64, "0")) for c in range(3) for i in range(4))
    return Dataset("colours", ("red", "green", "blue"), examples, (), (), "colours", picture)


@pytest.fixture(scope="session")
def spec():
    return AdapterSpec(layers="last-1", budget=500)


@pytest.fixture(scope="session")
def targets(backbone, spec):
    return plan(backbone.module, backbone.blocks, spec)
