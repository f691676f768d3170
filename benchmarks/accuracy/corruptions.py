"""Query pictures made worse: noise, blur, JPEG and contrast at five severities, as in ImageNet-C (arXiv 1903.12261).

Pictures are first brought to the model's input size, so that a severity means the same on every task; blur is in shares
of the side (the paper's pixels at 224). Everything random follows from the pixels' digest.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from PIL import Image, ImageFilter

from kusabi.data.dataset import Dataset, Example

STRENGTHS = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation; pixels are 0 to 1
    "blur": (1, 2, 3, 4, 6),  # standard deviation in pixels of a side of 224
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # what is left of the distance to the mean
}
GRID = tuple(product(STRENGTHS, range(1, 6)))  # kind and severity


def corrupted(image: Image.Image, kind: str, severity: int, digest: str, side: int) -> Image.Image:
    """A worse picture, RGB, its longer side ``side`` pixels.

    Args:
        image: RGB.
        kind: One of ``STRENGTHS``.
        severity: 1 to 5.
        digest: Of the picture's pixels.
        side: Of the model's input.
    """
    factor = side / max(image.size)
    image = image.resize([max(1, round(length * factor)) for length in image.size], Image.Resampling.BICUBIC)
    strength = STRENGTHS[kind][severity - 1]
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength * side / 224))
    if kind == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(strength))
        return Image.open(file).convert("RGB")
    pixels = np.asarray(image, dtype=np.float64) / 255
    if kind == "noise":
        key = hashlib.sha256(f"{digest} {severity}".encode()).digest()
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16])))
        pixels = pixels + strength * random.standard_normal(pixels.shape)
    else:
        mean = pixels.mean(axis=(0, 1))
        pixels = (pixels - mean) * strength + mean
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def corrupted_query(dataset: Dataset, query: Sequence[Example], side: int) -> tuple[Dataset, list[Example]]:
    """Every picture at every point of ``GRID``, kind by kind, and the data set that they come from."""
    found: dict[str, tuple[Example, str, int]] = {}
    examples = []
    for kind, severity in GRID:
        for example in query:
            name = f"{example.file}#{kind}{severity}"
            found[name] = example, kind, severity
            examples.append(replace(example, file=name))

    def read(file: str) -> Image.Image:
        example, kind, severity = found[file]
        return corrupted(dataset.read(example.file), kind, severity, example.digest, side)

    return replace(dataset, read=read), examples
