"""Which pictures are learned from, and which judge: seeded, stratified, never the same pixels or group on both sides.

- With a test split, the test split judges.
- Without one, the rest of the folder judges, where every class keeps at least ``ENOUGH`` pictures for it.
- Else the pictures learned from are cross-validated.

The order in which a class's pictures are drawn depends on the seed and that class alone, so 4 shots are a part of 8
shots, and a class added to the folder changes no other. Groups that hold several classes are drawn in one order for all
of these, so that as few groups as possible are spent; with groups, "a part of" holds among splits and among folds.
Of pictures with the same pixels one is used, on either side; under two labels, none.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from kusabi.data.dataset import Dataset, Example
from kusabi.data.enumeration import enumerated
from kusabi.data.folds import deal, group_of
from kusabi.errors import DataError

ENOUGH = 5  # pictures of a class that judge; with fewer, cross-validation says more
MOST_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Pictures learned from and pictures that judge; ``held_out`` says in words where the latter come from."""

    support: tuple[Example, ...]
    query: tuple[Example, ...]
    held_out: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """Too few pictures to hold any back: every one of ``support`` is judged once, in the fold that holds it out."""

    support: tuple[Example, ...]
    folds: tuple[Split, ...]
    held_out: str
    notes: tuple[str, ...]


def few_shot_split(dataset: Dataset, shots: int, seed: int) -> Split | Folds:
    """Up to ``shots`` pictures a class to learn from, and others that judge them.

    Raises:
        DataError: If a class has nothing to learn from, or nothing honest could judge.
    """
    if shots < 1:
        raise DataError(f"{shots} shots: at least one picture a class is learned from")
    train, test, notes = _without_conflicts(dataset)
    if dataset.test:
        train, removed = _apart_from(train, test)
        notes += removed
        # Counted twice, the same answer would make intervals too narrow.
        test, copies = _distinct(test, "left out of the test split")
        notes += copies
    train, copies = _distinct(train, "left out")
    notes += copies
    lost = sorted(set(range(len(dataset.classes))) - {example.label for example in train})
    if lost:
        raise DataError(f"{dataset.place}: nothing left to learn {_names(dataset, lost)} from: {'; '.join(notes)}")
    scarce = [f"'{dataset.classes[label]}' ({n})" for label, n in sorted(_counts(train).items()) if n < shots]
    if scarce:
        notes.append(f"classes with fewer than {shots} pictures, used with what they have: {enumerated(scarce)}")
    queues = _queues(dataset, train, seed)
    broad = _take(queues, shots, spread=True)
    if dataset.test:
        if not test:
            raise DataError(f"{dataset.place}: no picture is left to judge: {'; '.join(notes)}")
        notes.append(f"{_learned(broad, shots)}; the {len(test)} pictures of the test split judge")
        return Split(broad, tuple(test), "test split", tuple(notes))
    narrow = _take(queues, shots, spread=False)
    spent = {group_of(example) for example in narrow}
    rest = tuple(example for example in train if group_of(example) not in spent)
    kept = _counts(rest)
    fewest = min(kept[label] for label in range(len(dataset.classes)))
    units = _counts_of_groups(broad)
    if fewest >= ENOUGH or (fewest and min(units.values()) < 2):
        unused = len(train) - len(narrow) - len(rest)
        aside = f"; {unused} more, of groups that are learned from, are left out" if unused else ""
        notes.append(f"{_learned(narrow, shots)}; there is no test split: the other {len(rest)} judge{aside}")
        return Split(narrow, rest, "rest of the folder", tuple(notes))
    if min(units.values()) < 2:
        single = [label for label, n in sorted(_counts_of_groups(train).items()) if n < 2] or sorted(units)
        raise DataError(
            f"{dataset.place}: a single picture or group to learn {_names(dataset, single)} from: nothing honest "
            "can judge it; add pictures (at least two a class, of two groups where there are groups), or a test folder"
        )
    return _cross_validation(broad, len(train), min(MOST_FOLDS, min(units.values())), shots, notes)


def judged_of(dataset: Dataset) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Pictures that may judge what was learned elsewhere, the test split's where there is one, and notes on others.

    Raises:
        DataError: If none is left.
    """
    train, test, notes = _without_conflicts(dataset)
    query, copies = _distinct(test if dataset.test else train, "left out")
    if not query:
        raise DataError(f"{dataset.place}: no picture is left to judge: {'; '.join(notes)}")
    return tuple(query), (*notes, *copies)


def _cross_validation(support: tuple[Example, ...], n: int, count: int, shots: int, notes: list[str]) -> Folds:
    parts = deal(support, count)
    held_out = f"cross-validation, {len(parts)} folds"
    unused = f"; the other {n - len(support)} are not used" if n > len(support) else ""
    notes.append(
        f"{_learned(support, shots)}; there is no test split, and too few pictures to hold any back: each is judged "
        f"once, by a model that learned from the other folds ({held_out}){unused}"
    )
    folds = []
    for number, part in enumerate(parts, 1):
        out = {example.file for example in part}
        others = tuple(example for example in support if example.file not in out)
        folds.append(Split(others, tuple(part), f"fold {number} of {len(parts)}", ()))
    return Folds(support, tuple(folds), held_out, tuple(notes))


def _without_conflicts(dataset: Dataset) -> tuple[list[Example], list[Example], list[str]]:
    labels: dict[str, set[int]] = defaultdict(set)
    for example in (*dataset.train, *dataset.test):
        labels[example.digest].add(example.label)
    kept = [[one for one in side if len(labels[one.digest]) == 1] for side in (dataset.train, dataset.test)]
    dropped = [one.file for one in (*dataset.train, *dataset.test) if len(labels[one.digest]) > 1]
    notes = [f"the same pixels under two labels, left out of everything: {enumerated(dropped)}"] if dropped else []
    return kept[0], kept[1], notes


def _apart_from(train: Sequence[Example], test: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Training pictures that share neither pixels nor group with the test split, and what was left out."""
    pixels = {example.digest for example in test}
    groups = {group_of(example) for example in test if example.group is not None}
    same = [example.file for example in train if example.digest in pixels]
    related = [one.file for one in train if one.digest not in pixels and group_of(one) in groups]
    notes = []
    if same:
        notes.append(f"not learned from, since the same pixels are in the test split: {enumerated(same)}")
    if related:
        notes.append(f"not learned from, since their group is in the test split: {enumerated(related)}")
    return [one for one in train if one.digest not in pixels and group_of(one) not in groups], notes


def _distinct(examples: Sequence[Example], what: str) -> tuple[list[Example], list[str]]:
    """The first of those with the same pixels, and a note of the others, ending on ``what`` becomes of them."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.digest, example)
    copies = [example.file for example in examples if first[example.digest] is not example]
    notes = [f"copies of another picture, pixel by pixel, {what}: {enumerated(copies)}"] if copies else []
    return list(first.values()), notes


def _queues(dataset: Dataset, train: Sequence[Example], seed: int) -> list[list[list[Example]]]:
    """For each class its groups in the order in which they are drawn, each group's pictures in theirs."""
    ordered = sorted(train, key=lambda example: example.file)
    members: dict[tuple[str, str], set[int]] = defaultdict(set)
    for example in ordered:
        members[group_of(example)].add(example.label)
    kinds: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for group in sorted(members):
        kinds[tuple(sorted(dataset.classes[label] for label in members[group]))].append(group)
    turn: dict[tuple[str, str], float] = {}
    for names, groups in kinds.items():
        turn.update(zip(groups, _draws(seed, "groups", *names, n=len(groups)), strict=True))
    queues = []
    for label, name in enumerate(dataset.classes):
        own = [example for example in ordered if example.label == label]
        draws = dict(zip(own, _draws(seed, "pictures", name, n=len(own)), strict=True))
        held: dict[tuple[str, str], list[Example]] = defaultdict(list)
        for example in sorted(own, key=draws.__getitem__):
            held[group_of(example)].append(example)
        queues.append([held[group] for group in sorted(held, key=lambda group: (turn[group], group))])
    return queues


def _draws(seed: int, *key: str, n: int) -> list[float]:
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16]))).random(n).tolist()


def _take(queues: Sequence[Sequence[Sequence[Example]]], shots: int, *, spread: bool) -> tuple[Example, ...]:
    """The first ``shots`` of each class: one a group in turn (spread), or one group after the other."""
    taken: list[Example] = []
    for groups in queues:
        rounds = zip_longest(*groups) if spread else groups
        taken += [example for example in chain.from_iterable(rounds) if example is not None][:shots]
    return tuple(taken)


def _counts(examples: Sequence[Example]) -> Counter[int]:
    return Counter(example.label for example in examples)


def _counts_of_groups(examples: Sequence[Example]) -> Counter[int]:
    return Counter(label for label, _ in {(example.label, group_of(example)) for example in examples})


def _learned(support: Sequence[Example], shots: int) -> str:
    return f"{len(support)} pictures are learned from, at most {shots} a class"


def _names(dataset: Dataset, labels: Sequence[int]) -> str:
    return enumerated([f"'{dataset.classes[label]}'" for label in labels])
