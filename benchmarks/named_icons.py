"""Development tasks with telling names: icons of sets that neither the backbone nor any headline task contains.

The two development tasks (``benchmarks/development.py``) have names that mean little or nothing to the embedded
backbone. These have names that it knows from other drawings: families of line icons, gathered from small sets, and the
groups of two emoji sets. None was trained on: two were kept aside to choose settings with, the others' licences or
topics left them out.
"""

from collections.abc import Callable
from pathlib import Path

from benchmarks.icons import content_of, first_word, sides, stem
from benchmarks.pool import Pool
from benchmarks.tasks import Task

SETS = (
    "iconoir", "si-glyph", "codicon", "typcn", "system-uicons", "gridicons", "wordpress", "entypo", "dashicons",
    "circum", "icomoon-free", "et",
)  # fmt: skip
FAMILIES = (
    "arrow", "battery", "bell", "calendar", "chat", "cloud", "database", "document", "folder", "heart", "home", "mail",
    "phone", "shield", "star", "user",
)  # fmt: skip
FIREFOX = {
    "Nature": "animals and nature", "Objects": "objects", "People": "people", "Places": "places", "Symbols": "symbols",
}  # fmt: skip
EMOJIONE = {
    "Activities": "activities", "Flags": "flags", "Food": "food and drink", "Nature": "animals and nature",
    "Objects": "objects", "People": "people", "Symbols": "symbols", "Travel": "travel and places",
}  # fmt: skip


def _families(cache: Path) -> tuple[Pool, Pool]:
    """Line icons of many sets; a filled drawing goes where its outline goes."""
    named: dict[str, list[tuple[str, str, str]]] = {word: [] for word in FAMILIES}
    for name in SETS:
        for icon in content_of(cache, name)["icons"]:
            if (word := first_word(icon)) in named:
                named[word].append((f"{name}:{stem(icon)}", name, icon))
    return sides(cache, named)


def _groups(name: str, groups: dict[str, str]) -> Callable[[Path], tuple[Pool, Pool]]:
    def pictures(cache: Path) -> tuple[Pool, Pool]:
        categories = content_of(cache, name)["categories"]
        return sides(cache, {word: [(one, name, one) for one in categories[group]] for group, word in groups.items()})

    return pictures


PACKAGE = "@iconify/json 2.2.535 (npm)"
TASKS = {
    "icon families": Task(f"twelve sets of {PACKAGE}, each under its own licence", 84, _families),
    "Firefox emoji": Task(f"fxemoji (Apache 2.0) in {PACKAGE}", 84, _groups("fxemoji", FIREFOX)),
    "first emoji one": Task(f"emojione-v1 (CC BY-SA 4.0) in {PACKAGE}", 84, _groups("emojione-v1", EMOJIONE)),
}
