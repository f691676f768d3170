"""What the numbers say, in sentences: better, no clear difference, or worse; and what to use.

A difference is clear when its 95 % interval leaves out zero. A peer that wins or ties is named, and so is the cheaper
choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kusabi.report.grouped import remarks_on_groups
from kusabi.report.numbers import NOISE, percent, points, points_range, size_in_points
from kusabi.report.words import Words

Outcome = Literal["better", "unclear", "worse"]
_FROM_BAD_TO_GOOD: tuple[Outcome, ...] = ("worse", "unclear", "better")


@dataclass(frozen=True)
class Mark:
    """How the adapter stands against one other way of answering."""

    way: str
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """Everything said above the figures of a task."""

    marks: tuple[Mark, ...]
    sentence: str
    peers: tuple[str, ...]
    advice: str
    remarks: tuple[str, ...]

    @property
    def worst(self) -> Outcome:
        """The least favourable mark, which colours the whole: a winning peer is never shown in green."""
        found = {mark.outcome for mark in self.marks}
        return next(each for each in _FROM_BAD_TO_GOOD if each in found)


def outcome(comparison: Mapping[str, Any]) -> Outcome:
    """Where the interval of a difference lies: above zero, across it, or below."""
    low, high = comparison["interval"]
    if low > NOISE:
        return "better"
    return "worse" if high < -NOISE else "unclear"


def verdict(evaluation: Mapping[str, Any], words: Words) -> Verdict:
    """The verdict on one evaluation, single or pooled."""
    difference, against = evaluation["difference"], evaluation["against_peers"]
    best = evaluation["best_peer"]
    standing = outcome(difference)
    outcomes: dict[str, Outcome] = {
        peer: outcome(against[peer]) for peer in (best, *(peer for peer in against if peer != best))
    }
    # The advice names whoever the adapter stands worst against; of equals, the most accurate peer.
    rival = min(outcomes, key=lambda peer: _FROM_BAD_TO_GOOD.index(outcomes[peer]))
    peers = [_sentence(words, f"peer.{outcomes[best]}", best, against[best])]
    if rival != best:
        peers.append(_sentence(words, f"other.{outcomes[rival]}", rival, against[rival]))
    choice = max(("zero_shot", rival), key=lambda way: evaluation[way]["accuracy"])
    return Verdict(
        marks=(Mark("zero_shot", standing), Mark(rival, outcomes[rival])),
        sentence=words(
            f"verdict.{standing}", points=points(words, difference["value"]), evidence=_evidence(difference, words)
        ),
        peers=tuple(peers),
        advice=words(
            f"advice.{standing}_{outcomes[rival]}",
            peer=words.name("way_inside", rival),
            choice=words.name("way_inside", choice),
        ),
        remarks=tuple(_remarks(evaluation, standing, words)),
    )


def _evidence(difference: Mapping[str, Any], words: Words) -> str:
    return words(
        "verdict.evidence",
        range=points_range(words, difference["interval"]),
        pictures=words.amount("pictures", difference["n"]),
        seeds=words.amount("seeds", difference["seeds"]),
    )


def _sentence(words: Words, key: str, peer: str, comparison: Mapping[str, Any]) -> str:
    return words(
        key,
        peer=words.name("way_inside", peer),
        points=points(words, comparison["value"]),
        range=points_range(words, comparison["interval"]),
    )


def _remarks(evaluation: Mapping[str, Any], standing: Outcome, words: Words) -> list[str]:
    """What a careful reader must know beside the verdict."""
    difference, adapted, remarks = evaluation["difference"], evaluation["adapted"], []
    if standing == "unclear":
        effect = size_in_points(words, difference["minimum_detectable_effect"])
        remarks.append(words("verdict.could_see", effect=effect))
    if difference["seeds"] == 1:
        remarks.append(words("verdict.one_seed"))
    if "accuracies" in adapted:
        scores = words("number.joint").join(percent(words, one) for one in adapted["accuracies"])
        seeds, spread = words.amount("seeds", difference["seeds"]), size_in_points(words, adapted["spread"])
        remarks.append(words("verdict.spread", seeds=seeds, scores=scores, spread=spread))
    if str(evaluation["task"].get("held_out")).startswith("cross-validation"):
        remarks.append(words("facts.cross_validated"))
    return remarks + remarks_on_groups(evaluation["task"], words)
