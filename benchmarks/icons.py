"""Icons of vendors that the embedded backbone never saw, from the npm package ``@iconify/json``, drawn by ``resvg-py``.

Three tasks: the emoji groups of OpenMoji (colour), and two of icon families, where a class is the thing that comes
first in an icon's name: ``calendar-add`` and ``calendar-lock`` are calendars. Sizes and numbered variants of one
drawing are on the same side. Drawing needs the extra ``bench``; fetching needs npm.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pretraining.render import render_icon
from pretraining.sources import Icon, is_held_out

from benchmarks.pool import Pool
from kusabi.files import write_bytes

PACKAGE = "@iconify/json@2.2.535"
ARCHIVE = "iconify-json-2.2.535.tgz"
DIGEST = "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91"  # sha256 of the archive
LEARNED = 32  # pictures of a class to draw the support set from, where as many are left to judge
SIDE = 112

OPENMOJI = {
    "Activities": "activities", "Animals Nature": "animals and nature", "Flags": "flags",
    "Food Drink": "food and drink", "Objects": "objects", "People Body": "people",
    "Smileys Emotion": "smileys and emotion", "Symbols": "symbols", "Travel Places": "travel and places",
}  # fmt: skip
HUGEICONS = (
    "arrow", "bitcoin", "book", "calendar", "chart", "cloud", "file", "folder", "image", "mail", "message", "money",
    "shopping", "sun", "user",
)  # fmt: skip
FLUENT = (
    "arrow", "battery", "book", "building", "calendar", "chat", "clipboard", "cloud", "document", "folder", "image",
    "mail", "person", "phone", "table", "vehicle", "video", "weather", "window",
)  # fmt: skip
_SKIN = re.compile(r"-(medium-light|medium-dark|light|medium|dark)-skin-tone")
_FLUENT = re.compile(r"(.+)-(\d+)-(filled|regular)")


def openmoji_groups(cache: Path) -> tuple[Pool, Pool]:
    """Emoji of OpenMoji under its nine groups; those with a skin tone are left out."""
    content = _content(cache, "openmoji")
    named = {
        word: [(name, name) for name in content["categories"][group] if not _SKIN.search(name)]
        for group, word in OPENMOJI.items()
    }
    return _sides(content, named)


def hugeicons_families(cache: Path) -> tuple[Pool, Pool]:
    """Line icons of Hugeicons; drawings of a name that differ in their number are one group."""
    content = _content(cache, "hugeicons")
    named: dict[str, list[tuple[str, str]]] = {word: [] for word in HUGEICONS}
    for name in content["icons"]:
        if (word := _first_word(name)) in named:
            named[word].append((re.sub(r"-?\d+$", "", name), name))
    return _sides(content, named)


def fluent_families(cache: Path) -> tuple[Pool, Pool]:
    """Icons of Fluent: of each name the largest drawing, filled and as lines; both are one group."""
    content = _content(cache, "fluent")
    largest: dict[tuple[str, str], int] = {}
    for name in content["icons"]:
        if (parts := _FLUENT.fullmatch(name)) and _first_word(name) in FLUENT:
            key = parts[1], parts[3]
            largest[key] = max(largest.get(key, 0), int(parts[2]))
    named: dict[str, list[tuple[str, str]]] = {word: [] for word in FLUENT}
    for (stem, style), size in largest.items():
        named[_first_word(stem)].append((stem, f"{stem}-{size}-{style}"))
    return _sides(content, named)


def _first_word(name: str) -> str:
    return re.sub(r"\d+$", "", name.partition("-")[0])


def _sides(content: Mapping[str, Any], named: Mapping[str, Sequence[tuple[str, str]]]) -> tuple[Pool, Pool]:
    """Pictures to learn from and pictures that judge, whole groups on either side.

    Args:
        content: Of the set's file.
        named: Class -> group and name of its icons.
    """
    learned, judged = {}, {}
    for word, icons in named.items():
        sides = dealt(icons)
        learned[word], judged[word] = ([_drawn(content, name) for name in side] for side in sides)
    return learned, judged


def dealt(icons: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Names of both sides, in an order that depends on the groups' names alone; at most half are learned from.

    Args:
        icons: Group and name of each.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for group, name in sorted(icons):
        groups[group].append(name)
    sides: tuple[list[str], list[str]] = ([], [])
    most = min(LEARNED, len(icons) // 2)
    for group in sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest()):
        sides[len(sides[0]) + len(groups[group]) > most].extend(groups[group])
    return sides


def _drawn(content: Mapping[str, Any], name: str) -> Image.Image:
    """On white."""
    entry = content["icons"][name]
    left, top, width, height = (
        entry.get(key, content.get(key, other))
        for key, other in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    icon = Icon(content["prefix"], name, "", True, (left, top, width, height), entry["body"])
    drawn = Image.fromarray(render_icon(icon, SIDE))
    if not drawn.getchannel("A").getbbox():
        raise SystemExit(f"{content['prefix']}:{name}: nothing was drawn; check the version of resvg-py (0.5.0)")
    white = Image.new("RGBA", drawn.size, "white")
    return Image.alpha_composite(white, drawn).convert("RGB")


def _content(cache: Path, name: str) -> dict[str, Any]:
    """A set's file, taken out of the archive once; the archive is fetched when absent."""
    assert is_held_out(name), "only sets that no training saw judge"
    path = cache / "icons" / f"{name}.json"
    if not path.exists():
        archive = _fetched(cache)
        with tarfile.open(archive) as opened:
            inside = opened.extractfile(f"package/json/{name}.json")
            assert inside is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, inside.read())
    return json.loads(path.read_text(encoding="utf-8"))


def _fetched(cache: Path) -> Path:
    archive = cache / ARCHIVE
    if not archive.exists():
        if shutil.which("npm") is None:
            raise SystemExit(f"npm is needed to fetch {PACKAGE}: install it, or put {ARCHIVE} into {cache}")
        aside = cache / ".npm"
        aside.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", PACKAGE], cwd=aside, check=True, stdout=subprocess.DEVNULL)
        (aside / ARCHIVE).rename(archive)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != DIGEST:
        raise SystemExit(f"{archive}: sha256 is {found}, not {DIGEST}; remove it, it is fetched again")
    return archive
