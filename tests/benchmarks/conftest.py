"""Random pictures of three classes before a tiny model, as all peers see them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers.material import gather
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.data.dataset import Dataset, Example

WORDS = ("cat", "dog", "red plate")
SHOTS = 4


def picture(file):
    """Noise whose colour tells the class: ``1/4`` is picture 4 of class 1."""
    label, number = map(int, file.split("/"))
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 240, size=(30, 30, 3), dtype=np.uint8)
    pixels[..., label] += 15
    return Image.fromarray(pixels)


def example(label, number):
    return Example(f"{label}/{number}", label, None, f"{label}{number}".ljust(64, "0"))


@pytest.fixture(scope="session")
def gathered(tiny):
    """Material of a tiny model: ``gathered("clip")``, gathered once for each kind and shots."""
    made = {}

    def give(kind="clip", shots=SHOTS, **changes):
        if (kind, shots) not in made:
            support = [example(label, number) for label in range(3) for number in range(shots)]
            query = [example(label, number) for label in range(3) for number in range(20, 24)]
            dataset = Dataset("noise", WORDS, tuple(support), (), (), "noise", picture)
            made[kind, shots] = gather(
                load_backbone(tiny(kind)), dataset, support, query, tuple((f"a photo of a {word}",) for word in WORDS),
                shots=shots, seed=3, steps=6, batch_size=8, views=2, new_prompts=(("a photo of a dent",),),
            )  # fmt: skip
        # What a class is called is the whole first prompt unless said; these prompts hold more than the words.
        return replace(made[kind, shots], words=WORDS, **changes)

    return give


@pytest.fixture
def material(gathered):
    return gathered()
