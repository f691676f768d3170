"""The licence that a model folder names: read in one place after the other, with the place, and never guessed.

The front matter of ``README.md`` comes first (on the Hub this is the model card), then ``config.json``, then a licence
file. Of the latter only its own words are given: an SPDX line, or the heading that calls it a licence.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import metadata_load

CARD, CONFIG = "README.md", "config.json"
_FILES = re.compile(r"(licen[sc]e|copying)([.-].*)?", re.IGNORECASE)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*(\(?[\w.+-]+(?:[ \t]+(?:OR|AND|WITH)[ \t]+[\w.+-]+)*\)?)")
_NOTHING = ("", "unknown", "other", "none", "n/a")  # words that name no licence
_HEAD = 4096  # bytes of a licence file that are looked at
_LONGEST = 120  # characters; what is longer is no name


@dataclass(frozen=True)
class Licence:
    """``name`` as written and the file ``where`` it stands; a name of None is unknown, and ``note`` says why.

    With a name, ``note`` tells what stands against it.
    """

    name: str | None
    where: str | None
    note: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Plain data."""
        return {"name": self.name, "where": self.where, "note": self.note}


def read_licence(folder: Path) -> Licence:
    """What a folder says of its licence. Files that cannot be read say nothing; nothing is raised."""
    files = _licence_files(folder)
    found = [(where, name) for where, name in ((CARD, _of_card(folder)), (CONFIG, _of_config(folder))) if name]
    found += [(path.name, name) for path in files if (name := _of_file(path))]
    named = [(where, name) for where, name in found if name.casefold() not in _NOTHING]
    if not named:
        return Licence(None, None, _why_unknown(found, files))
    where, name = named[0]
    # A heading is no identifier: only the card and the configuration can contradict each other.
    against = [f"{other} says '{says}'" for other, says in named[1:]
               if other == CONFIG and says.casefold() != name.casefold()]  # fmt: skip
    return Licence(name, where, "; ".join(against) or None)


def _why_unknown(found: list[tuple[str, str]], files: list[Path]) -> str:
    said = [f"{where} says '{name}' and names none" for where, name in found]
    said += [f"{path.name} is there, but does not name itself; read it" for path in files]
    return "; ".join(said) or f"neither {CARD} nor {CONFIG} names one, and there is no licence file"


def _of_card(folder: Path) -> str | None:
    try:
        front: Any = metadata_load(folder / CARD) or {}
        licence, name = _text(front.get("license")), _text(front.get("license_name"))
    except Exception:  # a card that cannot be read says nothing
        return None
    return name if name and (licence is None or licence.casefold() in _NOTHING) else licence


def _of_config(folder: Path) -> str | None:
    try:
        return _text(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("license"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    """One name, or several joined; anything else names nothing."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        return None
    line = " ".join(value.split())
    return line if line and len(line) <= _LONGEST and line.isprintable() else None


def _licence_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _FILES.fullmatch(path.name) and path.is_file())
    except OSError:
        return []


def _of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError:
        return None
    if tagged := _SPDX.search(head):
        return _text(tagged[1])
    # The first paragraph, where it calls itself a licence and is short enough for a heading.
    paragraph = re.split(r"\n\s*\n", head.strip().replace("\r", ""), maxsplit=1)[0]
    lines = [line for line in paragraph.splitlines() if "://" not in line]
    heading = _text("\n".join(lines)) if len(lines) <= 3 else None
    return heading if heading and re.search(r"\blicen[sc]e\b", heading, re.IGNORECASE) else None
