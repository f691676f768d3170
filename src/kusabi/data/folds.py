"""Few pictures dealt into folds: stratified, whole groups."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from kusabi.data.dataset import Example


def group_of(example: Example) -> tuple[str, str]:
    """What must stay on one side: the example's group, or, where it has none, the picture itself."""
    return ("file", example.file) if example.group is None else ("group", example.group)


def deal(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """About ``count`` folds that share no group, with the pictures of each class spread as evenly as groups allow.

    Every class is in at least two folds, so that leaving one out leaves something of every class. Where groups hold
    several classes that can take more folds than asked for.

    Args:
        examples: In an order that already is random; each class in at least two groups.
        count: Folds wanted, at least 2.
    """
    groups: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        groups[group_of(example)].append(example)
    spread = Counter(label for members in groups.values() for label in {example.label for example in members})
    # The classes with the fewest groups have the least choice and are dealt first; within a class the big groups.
    order = sorted(
        ((_rarest(members, spread), members) for members in groups.values()),
        key=lambda pair: (spread[pair[0]], pair[0], -len(pair[1])),
    )
    for tried in range(min(count, len(groups)), len(groups) + 1):
        folds = _dealt(order, tried)
        homes = Counter(label for fold in folds for label in {example.label for example in fold})
        if all(homes[label] >= 2 for label in spread):
            return folds
    raise AssertionError("a class in one group cannot be dealt into folds")


def _rarest(members: Sequence[Example], spread: Counter[int]) -> int:
    return min({example.label for example in members}, key=lambda label: (spread[label], label))


def _dealt(order: Sequence[tuple[int, Sequence[Example]]], count: int) -> list[list[Example]]:
    folds: list[list[Example]] = [[] for _ in range(count)]
    held = [Counter[int]() for _ in range(count)]
    for label, members in order:
        lightest = min(range(count), key=lambda index: (held[index][label], len(folds[index])))
        folds[lightest] += members
        held[lightest].update(example.label for example in members)
    return [fold for fold in folds if fold]
