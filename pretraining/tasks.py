"""What the exported folder is measured on: pictures that no training stage has seen, as plain arrays with names."""

import gzip
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pretraining.render import render_icon
from pretraining.sources import Icon, read_icons

FASHION = "dataset-fashion-mnist"
FASHION_NAMES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
VQA_COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
VQA_SHAPES = ("circle", "rectangle", "triangle")


@dataclass(frozen=True)
class Task:
    """Pictures ``(n, h, w, 3)``, uint8, the class of each, and the names of the classes."""

    pictures: np.ndarray
    labels: np.ndarray
    names: list[str]


def naming_task(folder: Path, set_name: str, allowed: set[str] | None, n: int = 600, seed: int = 0) -> Task:
    """Name ``n`` pictures of a set, told apart among their own names, or among all names of the set.

    Args:
        folder: The unpacked icon package.
        set_name: The set; its pictures are drawn on white.
        allowed: Draw among these names, and tell apart among the names drawn; None for all names of the set.
        n: How many pictures.
        seed: Of the draw.
    """
    icons = read_icons(folder, lambda name, _: name == set_name)
    chosen = _sample([i for i in icons if allowed is None or i.caption in allowed], n, seed)
    names = sorted({icon.caption for icon in (icons if allowed is None else chosen)})
    row = {name: index for index, name in enumerate(names)}
    return Task(on_white(chosen), np.array([row[icon.caption] for icon in chosen]), names)


def japanese_task(folders: dict[str, Path], set_name: str = "openmoji", n: int = 600, seed: int = 0):
    """Emoji pictures named in Japanese; returns the task and the English label of every Japanese name."""
    points = {
        name: code
        for code, name in json.loads((folders["icons"] / "json" / f"{set_name}.json").read_text())["chars"].items()
    }
    labels = {}
    english = {e["hexcode"].lower(): e["label"].lower() for e in _emoji(folders["emoji"], "en")}
    for entry in _emoji(folders["emoji"], "ja"):
        code = entry["hexcode"].lower()
        for variant in (code, code.replace("-fe0f", "")):
            labels[variant] = (entry["label"], english.get(code, ""))
    icons = [i for i in read_icons(folders["icons"], lambda name, _: name == set_name) if points.get(i.name) in labels]
    chosen = _sample(icons, n, seed)
    both = sorted({labels[points[icon.name]] for icon in chosen})
    row = {pair: index for index, pair in enumerate(both)}
    rows = np.array([row[labels[points[icon.name]]] for icon in chosen])
    return Task(on_white(chosen), rows, [ja for ja, _ in both]), [en for _, en in both]


def _emoji(folder: Path, language: str) -> list[dict]:
    return json.loads((folder / language / "data.json").read_text())


def _sample(icons: list[Icon], n: int, seed: int) -> list[Icon]:
    rows = np.random.default_rng(seed).permutation(len(icons))[:n]
    return [icons[i] for i in rows]


def on_white(icons: list[Icon], side: int = 112) -> np.ndarray:
    """Render icons on a white ground, ``(n, side, side, 3)``."""
    rgba = np.stack([render_icon(icon, side) for icon in icons]).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    return np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def easy_vqa() -> Task:
    """The test pictures of easy-VQA under names of colour and shape, 24 classes."""
    import easy_vqa
    from PIL import Image

    paths = easy_vqa.get_test_image_paths()
    found: dict[int, dict[str, str]] = {index: {} for index in paths}
    for _, answer, index in zip(*easy_vqa.get_test_questions(), strict=True):
        if answer in VQA_COLOURS:
            found[index]["colour"] = answer
        elif answer in VQA_SHAPES:
            found[index]["shape"] = answer
    names = [f"a {colour} {shape}" for colour in VQA_COLOURS for shape in VQA_SHAPES]
    known = sorted(index for index, answers in found.items() if len(answers) == 2)
    labels = [names.index(f"a {found[i]['colour']} {found[i]['shape']}") for i in known]
    pictures = [np.asarray(Image.open(paths[i]).convert("RGB")) for i in known]
    return Task(np.stack(pictures), np.array(labels), names)


def fashion(cache: Path) -> tuple[Task, Task]:
    """Fashion-MNIST from Debian's package: the training part and the test part."""
    folder = cache / FASHION
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise SystemExit(f"apt-get is needed to fetch {FASHION}: unpack that Debian package into {folder}")
        subprocess.run(["apt-get", "download", FASHION], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", str(next(cache.glob(f"{FASHION}_*.deb"))), str(folder)], check=True)
    parts = []
    for part in ("train", "t10k"):
        (images,), (labels,) = (list(folder.rglob(f"{part}-{kind}*.gz")) for kind in ("images", "labels"))
        pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(int)
        parts.append(Task(np.repeat(pixels, 3, 3), classes, list(FASHION_NAMES)))
    return parts[0], parts[1]


def textile() -> tuple[Task, Task]:
    """Simulated fabric, 3 balanced classes: the first 250 pictures of each as support, the next 250 as query."""
    import conformal_clip_data as data
    from PIL import Image

    folders = {"nominal": data.nominal_dir(), "global": data.global_dir(), "local": data.local_dir()}
    blocks: list[Task] = []
    for block in (slice(0, 250), slice(250, 500)):
        pictures, labels = [], []
        for label, folder in enumerate(folders.values()):
            paths = sorted(folder.glob("*.jpg"), key=lambda p: int(p.stem.split("_")[-1]))[block]
            pictures += [np.asarray(Image.open(p).convert("RGB")) for p in paths]
            labels += [label] * len(paths)
        blocks.append(Task(np.stack(pictures), np.array(labels), list(folders)))
    return blocks[0], blocks[1]
