"""Peers on the schedules of their papers, thousands of updates: a check that a hundred are fair to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from unittest.mock import patch

from benchmarks.peers import PEERS
from benchmarks.peers.answers import Answers
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS


@dataclass(frozen=True)
class Schedule:
    """``per_shot`` updates for each labelled picture of a class, peak step size ``rate``, by settings of ``names``."""

    per_shot: int
    rate: float
    names: tuple[str, ...]


PUBLISHED: Mapping[str, Schedule] = {
    "clip_lora": Schedule(500, 2e-4, ("clip_lora",)),  # arXiv 2405.18541, section 4
    "two_stage": Schedule(300, 2e-4, ("two_stage", "two_stage_classifier")),  # arXiv 2503.11609, section 5
}


def steps_of(method: str, shots: int) -> int:
    """Updates of the paper's schedule."""
    return PUBLISHED[method].per_shot * shots


def run_published(method: str, material: Material) -> Answers:
    """The method with the paper's updates and step size; all else as in the other stages."""
    schedule = PUBLISHED[method]
    settings = {name: replace(SETTINGS[name], rate=schedule.rate) for name in schedule.names}
    with patch.dict(SETTINGS, settings):
        return PEERS[method].run(replace(material, steps=steps_of(method, material.shots)))
