"""Icon names into captions: style words, sizes, variant numbers and skin tones go, the thing itself stays."""

import re

# Style words that never name a thing, wherever a name ends with them.
STYLE = frozenset({
    "outline", "outlined", "filled", "duotone", "twotone", "linear", "fill", "rounded", "alt", "negative",
    "flat", "duo", "stroke", "solid", "colored", "mono", "simple", "lined", "broken", "freehand",
    "minimalistic", "regular",
})  # fmt: skip
# Style words that are also things ("traffic light", "bottom line"): removed only where the set declares them.
AMBIGUOUS = frozenset(["line", "light", "bold", "thin", "round", "sharp", "color", "two", "tone", "baseline"])
REFUSED = frozenset(["logo", "logos", "brand", "brands"])
_SKIN = re.compile(r"(-(medium-light|medium-dark|light|medium|dark)-skin-tone)+")
_SIZE = re.compile(r"^\d{1,3}(px)?$")
_NUMBERED = re.compile(r"^([a-z]{4,})\d{1,2}$")


def caption_of(name: str, declared: frozenset[str] = frozenset()) -> str:
    """Return the caption of an icon name, or an empty string for one that should not be learned.

    Args:
        name: The name inside its set, words joined by hyphens.
        declared: Words that the set itself lists as prefixes or suffixes of styles.
    """
    words = _SKIN.sub("", name.lower().replace("_", "-").replace("--", "-")).split("-")
    style = STYLE | (declared & AMBIGUOUS)
    while len(words) > 1 and words[0] in declared & (STYLE | AMBIGUOUS):
        words = words[1:]
    while len(words) > 1 and (words[-1] in style or _SIZE.match(words[-1])):
        words = words[:-1]
    if numbered := _NUMBERED.match(words[-1]):
        words[-1] = numbered.group(1)
    if REFUSED & set(words):
        return ""
    caption = " ".join(w for w in words if w)
    caption = re.sub(r"^flag for ", "flag ", caption)
    return caption if len(caption) > 1 and re.search(r"[a-z]{2}", caption) else ""


def declared_styles(collection: dict) -> frozenset[str]:
    """Words that an icon set lists as the prefixes and suffixes of its styles."""
    listed = [*(collection.get("suffixes") or {}), *(collection.get("prefixes") or {})]
    return frozenset(word for entry in listed for word in entry.split("-") if word)


def unjoined(caption: str, spaced: dict[str, str]) -> str:
    """Give a run-together name ("videogame") the spelling that other sets use ("video game"), if they have it."""
    return spaced.get(caption.replace(" ", ""), caption)
