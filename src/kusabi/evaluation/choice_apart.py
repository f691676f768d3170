"""What a recommendation brings on pictures that judge it, when these pictures are among those that chose.

Without a test split the held-out losses that choose a placement come from the same pictures as the answers that say
what it brings. The best of many placements is the best by luck too, and the same pictures would praise it for that. So
the rule chooses anew for every part of the judged pictures, by the losses on all others; the part is answered by what
was chosen without it, and the parts are pooled. This needs no further training: as in I. Tsamardinos, E. Greasidou and
G. Borboudakis, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", Machine
Learning 107 (2018), answers are stored once, and choosing and judging share them out. The trainings that gave the
other answers have learned from the part; how well the part itself was answered is what no choice for it looks at.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kusabi.evaluation.placement import Line, recommend


@dataclass(frozen=True)
class Draw:
    """The pictures of one seed, each by what must stay on one side: its group, or itself.

    ``labelled`` stand in the order of ``support_losses``, ``judged`` in that of ``right``; ``part`` numbers the part of
    each that judges: its fold, where there are folds.
    """

    labelled: Sequence[Hashable]
    judged: Sequence[Hashable]
    part: Sequence[int]


@dataclass(frozen=True)
class Apart:
    """Lines whose ``right`` are the answers of what was chosen without them, and how many each placement gave.

    Where nothing but the default was chosen, the line is the default's own.
    """

    lines: tuple[Line, ...]
    answers: Mapping[str, int]


def choose_apart(lines: Mapping[str, Sequence[Line]], default: str, draws: Mapping[int, Draw]) -> Apart:
    """Every judged picture answered by the placement that ``recommend`` takes without that part of the pictures.

    Where no judged picture is a labelled one, as with a test split, all parts get the one recommended placement.

    Args:
        lines: Placement -> its lines, one a seed, as for ``recommend``.
        default: The placement to leave only for a reason.
        draws: Seed -> its pictures.
    """
    seeds = [int(line["seed"]) for line in lines[default]]
    labelled = chosen_by(draws, seeds)
    found, answers = [], Counter[str]()
    for row, seed in enumerate(seeds):
        line, draw, moved = lines[default][row], draws[seed], False
        right = list(line["right"])
        for part in dict.fromkeys(draw.part):
            own = [i for i, number in enumerate(draw.part) if number == part]
            judged = {draw.judged[i] for i in own}
            others = np.array([picture not in judged for picture in labelled])
            taken = recommend(lines, default, others, labelled)["placement"]
            for i in own:
                right[i] = lines[taken][row]["right"][i]
            answers[taken] += len(own)
            moved |= taken != default
        found.append({**line, "right": "".join(right)} if moved else line)
    return Apart(tuple(found), dict(answers))


def chosen_by(draws: Mapping[int, Draw], seeds: Iterable[int]) -> list[Hashable]:
    """What each held-out loss is of, laid end to end over the seeds as the losses are."""
    return [picture for seed in seeds for picture in draws[seed].labelled]


def judges_choose(draws: Mapping[int, Draw]) -> bool:
    """Whether any picture that judges is also one whose loss chooses, be it in another seed."""
    labelled = {picture for draw in draws.values() for picture in draw.labelled}
    return any(not labelled.isdisjoint(draw.judged) for draw in draws.values())


def worth_of(found: Mapping[str, Any]) -> Literal["unseen", "anew", "same"]:
    """What the difference of a recommendation in ``ablation.json`` was measured on.

    ``unseen`` pictures, which chose nothing; parts for each of which the rule chose ``anew`` without it; or, in files
    of older versions without a test split, the ``same`` pictures that chose, which flatter it.
    """
    advice, task = found["recommendation"], found["task"]
    if "chosen_anew" in advice:
        return "anew" if advice["chosen_anew"] else "unseen"
    rest = task.get("held_out") == "rest of the folder" and len(task["seeds"]) > 1
    return "same" if found.get("cross_validated") or rest else "unseen"
