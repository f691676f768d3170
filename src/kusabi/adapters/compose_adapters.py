"""Whole adapters made into one: what they add, their classifiers, and a card that says what became of what."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.adapters.checkpoint import Adapter, rounded
from kusabi.adapters.compose import How
from kusabi.adapters.compose_heads import ClassHead, compose_heads
from kusabi.adapters.compose_kinds import check_kinds, compose_kinds
from kusabi.adapters.interference import Interference, interference
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.part import WeightDelta
from kusabi.errors import AdapterError, listed


def labels_of(adapters: Sequence[Adapter]) -> list[str]:
    """A name for each: its data and the beginning of its digest; a number too where it comes again."""
    names = [
        f"{adapter.card.get('data', {}).get('name', 'adapter')} {adapter.card['digest'][:8]}" for adapter in adapters
    ]
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return labels


def check_alike(adapters: Sequence[Adapter], labels: Sequence[str]) -> None:
    """Refuse adapters that were not made for one backbone and one preparation of pictures.

    Raises:
        AdapterError: With every mismatch to the first adapter.
    """
    wrong = []
    first = adapters[0].card["backbone"]
    for label, adapter in zip(labels[1:], adapters[1:], strict=True):
        own = adapter.card["backbone"]
        if own["digest"] != first["digest"]:
            wrong.append(
                f"{label} was made for {own['source']} {own['digest'][:12]}, "
                f"{labels[0]} for {first['source']} {first['digest'][:12]}"
            )
        for key in sorted(own["preprocessing"].keys() | first["preprocessing"]):
            one, other = own["preprocessing"].get(key), first["preprocessing"].get(key)
            if one != other:
                wrong.append(f"{label} was trained on pictures with {key} {one!r}, {labels[0]} with {other!r}")
    if wrong:
        raise AdapterError(f"these adapters do not belong together: {listed(wrong, '; ')}")


def interference_of(adapters: Sequence[Adapter], labels: Sequence[str]) -> Interference | None:
    """The card of every two of some adapters; None for one alone.

    Raises:
        AdapterError: If a part is inserted, or values are not finite.
    """
    check_kinds([adapter.parts for adapter in adapters], "sum")
    if len(adapters) < 2:
        return None
    deltas = [[part for part in adapter.parts if isinstance(part, WeightDelta)] for adapter in adapters]
    return interference(deltas, labels, sizes_of(adapters))


def compose_adapters(
    adapters: Sequence[Adapter], labels: Sequence[str], weights: Sequence[float], how: How = "sum", *,
    density: float = 1.0,
) -> Adapter:  # fmt: skip
    """One adapter in place of several, as it would be stored.

    Args:
        adapters: At least one, as loaded.
        labels: One for each, for the card.
        weights: One finite factor for each.
        how: See ``compose_kinds``.
        density: For ``ties``, see ``compose``.

    Raises:
        AdapterError: If they are not for one backbone, or their parts or classifiers cannot be composed.
    """
    check_alike(adapters, labels)
    sizes = sizes_of(adapters)
    parts = compose_kinds([adapter.parts for adapter in adapters], weights, how, density=density, sizes=sizes)
    heads = [
        ClassHead(tuple(a.card["classes"]), tuple(tuple(prompts) for prompts in a.card["prompts"]), a.head)
        for a in adapters
    ]
    head, kinds = compose_heads(heads, weights), [part.kind for part in parts]
    card = _card(adapters, labels, weights, how, density, head) | {
        "kind": kinds[0] if len(kinds) == 1 else "hybrid",
        "targets": _targets(adapters, parts, sizes),
    }
    return rounded(Adapter(parts, head.tensors, card))


def sizes_of(adapters: Sequence[Adapter]) -> dict[str, int]:
    """Entries of every weight that some adapter is added to, as the cards and the factors say."""
    sizes: dict[str, int] = {}
    for adapter in adapters:
        tensors = {target["tensor"]: target["size"] for target in adapter.card["targets"]}
        for part in adapter.parts:
            if isinstance(part, LowRank):
                sizes |= {name: rows * columns for name, (rows, columns) in part.shapes.items()}
            elif isinstance(part, WeightDelta):
                sizes |= {name: tensors[name] for name in part.weights}
    return sizes


def _targets(
    adapters: Sequence[Adapter], parts: Sequence[WeightDelta], sizes: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Where the composed tensors belong, as the cards of the given adapters say."""
    known = {target["tensor"]: target for adapter in adapters for target in adapter.card["targets"]}
    found = []
    for part in parts:
        for name, entries in zip(part.names, part.counts, strict=True):
            size = part.sizes.get(name) or sizes[name]
            place = {key: value for key, value in known[name].items() if key != "part"}
            found.append({**place, "size": size, "entries": entries})
    return found


def _card(
    adapters: Sequence[Adapter], labels: Sequence[str], weights: Sequence[float], how: str, density: float,
    head: ClassHead,
) -> dict[str, Any]:  # fmt: skip
    first, cards = adapters[0].card, [adapter.card for adapter in adapters]
    asked = {card.get("spec", {}).get("backbone", {}).get("dtype", "float32") for card in cards}
    resident = {**first.get("spec", {}).get("backbone", {}), "dtype": asked.pop() if len(asked) == 1 else "float32"}
    names = dict.fromkeys(card.get("data", {}).get("name", "?") for card in cards)
    pictures = [card.get("data", {}).get("support_pictures", 0) for card in cards]
    sources = [
        {"label": label, "digest": card["digest"], "weight": float(weight), "kind": card["kind"],
         "data": card.get("data"), "classes": list(card["classes"])}
        for label, card, weight in zip(labels, cards, weights, strict=True)
    ]  # fmt: skip
    known = [(card.get("spec") or {}).get("data", {}) for card in cards]
    alike = all("templates" in data and data["templates"] == known[0]["templates"] for data in known)
    return {
        "classes": list(head.classes),
        "prompts": [list(of_class) for of_class in head.prompts],
        "backbone": first["backbone"],
        "embedding_size": max(card.get("embedding_size", 0) for card in cards),
        "head": {"kind": "prototypes" if head.tensors else "text"},
        "data": {
            "name": " + ".join(names),
            "digest": hashlib.sha256("".join(sorted(card["digest"] for card in cards)).encode()).hexdigest(),
            "support_pictures": sum(pictures),
            "learned": sorted({one for card in cards for one in card.get("data", {}).get("learned", ())}),
        },
        "spec": {"backbone": resident} | ({"data": {"templates": known[0]["templates"]}} if alike else {}),
        "composition": {"how": how, "density": density, "sources": sources},
    }
