"""Fashion-MNIST, grey clothes of 28 x 28 pixels in ten classes, from Debian's package ``dataset-fashion-mnist``."""

import gzip
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pool import Pool

PACKAGE = "dataset-fashion-mnist"
CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
EACH = 200  # pictures of a class that are laid out to be drawn from; the package has 6,000


def fashion(cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from (of the training part) and pictures that judge (of the test part)."""
    folder = _fetched(cache)
    return _read(folder, "train"), _read(folder, "t10k")


def _fetched(cache: Path) -> Path:
    """Where the package's files are: installed, or unpacked into the cache, where they are fetched when absent."""
    inside = Path("usr/share/datasets/fashion-mnist")
    for root in (Path("/"), cache / PACKAGE):
        if (root / inside).is_dir():
            return root / inside
    if shutil.which("apt-get") is None:
        raise SystemExit(f"{cache / PACKAGE}: not there; install or unpack Debian's package {PACKAGE}, or leave it out")
    subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["dpkg-deb", "-x", str(next(cache.glob(f"{PACKAGE}_*.deb"))), str(cache / PACKAGE)], check=True)
    return cache / PACKAGE / inside


def _read(folder: Path, part: str) -> Pool:
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    classes = np.frombuffer(labels, np.uint8, offset=8)
    return {
        name: [Image.fromarray(pixels[row]) for row in np.flatnonzero(classes == label)[:EACH]]
        for label, name in enumerate(CLASSES)
    }
