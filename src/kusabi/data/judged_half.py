"""A test split for folders that have none: half of every class, whole groups, the same whatever is learned from.

A learning curve needs it: ``few_shot_split`` lets the rest of the folder judge, which is another one for every draw.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import replace

from kusabi.data.dataset import Dataset, Example
from kusabi.data.enumeration import enumerated
from kusabi.data.folds import deal, group_of
from kusabi.errors import DataError


def with_test_split(dataset: Dataset, seed: int) -> Dataset:
    """The same pictures with a test split; a dataset that has one is returned as it is.

    Raises:
        DataError: If a class has a single picture or group, so that nothing of it can both teach and judge.
    """
    if dataset.test:
        return dataset
    groups: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for example in dataset.train:
        groups[example.label].add(group_of(example))
    single = [f"'{name}'" for label, name in enumerate(dataset.classes) if len(groups[label]) < 2]
    if single:
        raise DataError(
            f"{dataset.place}: {enumerated(single)}: a single picture or group, so that nothing can both teach and "
            "judge; add pictures, or a test folder"
        )

    def turn(example: Example) -> str:
        return hashlib.sha256(json.dumps([seed, "judged half", example.file]).encode()).hexdigest()

    folds = deal(sorted(dataset.train, key=turn), 2)
    judged = {example.file for fold in folds[: len(folds) // 2] for example in fold}
    train, test = (tuple(one for one in dataset.train if (one.file in judged) == side) for side in (False, True))
    missing = set(range(len(dataset.classes))) - {example.label for example in train}
    if missing:
        names = enumerated([f"'{dataset.classes[label]}'" for label in sorted(missing)])
        raise DataError(f"{dataset.place}: groups leave nothing to learn {names} from; add a test folder")
    note = f"there is no test split: half of every class judges ({len(test)} pictures), and is never learned from"
    return replace(dataset, train=train, test=test, notes=(*dataset.notes, note))
