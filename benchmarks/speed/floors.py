"""How far each stage of the embedded job is from its floor: the operations of its products at the best rate here.

Operations are those that the stage has to do at its placement, counted by torch while it does them; the rate is that of
one large product in the same precision, measured beside it. Decoding and the fits of classifiers have no such floor.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.clock import seconds
from benchmarks.speed.conditions import SHOTS, Conditions
from benchmarks.speed.embedded import CLASSES, SIDE, STEPS, spec_of_job
from benchmarks.speed.models import prompts_of
from benchmarks.speed.pictures import dataset_of, examples
from benchmarks.speed.record import Record
from kusabi.adapters.targets import plan
from kusabi.recipes.fit_support import fit_support
from kusabi.recipes.profile import Profile
from kusabi.recipes.watch import Watch, silent
from kusabi.training.precision import resolve

ROWS, WIDTH = 1024, 2048  # of the product that says what the machine can do


def floors(conditions: Conditions) -> list[Record]:
    """One record a stage that takes a hundredth of the time or more."""
    backbone = replace(conditions, model="mini", input_size=SIDE).load()
    spec, support = spec_of_job(), examples(CLASSES, SHOTS)
    weights, precision = plan(backbone.module, backbone.blocks, spec.adapter), resolve("auto", conditions.device)

    def run(watch: Watch) -> None:
        fit_support(
            backbone, dataset_of(CLASSES, support), support, prompts_of(CLASSES), weights, spec, precision=precision,
            watch=watch, run=None,
        )  # fmt: skip

    taken = [_seconds(run, conditions.device) for _ in range(1 if conditions.quick else 3)]
    medians = {name: statistics.median(each[name] for each in taken) for name in taken[0]}
    rate, counted = _rate(precision, conditions), _operations(run)
    whole = sum(medians.values())
    return [
        _record(name, spent, counted.get(name, 0), rate, precision)
        for name, spent in medians.items()
        if spent >= 0.01 * whole
    ]


def _seconds(run: Callable[[Watch], object], device: str) -> dict[str, float]:
    profile = Profile(silent, device)
    run(profile)
    return {stage["stage"]: stage["seconds"] for stage in profile.stages()}


def _record(stage: str, spent: float, operations: int, rate: float, precision: str) -> Record:
    floor = operations / rate
    heavy = floor >= 0.05 * spent  # else something else than products is what the stage does
    return Record(
        "floors", "mini", stage, spent / floor if heavy else None, {"seconds": spent}, {},
        {"operations": operations, "floor": floor, "rate": rate, "precision": precision, "updates": STEPS},
        "" if heavy else "no products to speak of",
    )  # fmt: skip


def _operations(run: Callable[[Watch], object]) -> dict[str, int]:
    """Of every stage's products, two for a multiplication with its addition."""
    found: dict[str, int] = {}
    before = 0
    with FlopCounterMode(display=False) as counter:

        def watch(stage: str, done: int, total: int, **facts: Any) -> None:
            nonlocal before
            now = counter.get_total_flops()
            found[stage] = found.get(stage, 0) + now - before
            before = now

        run(watch)
    return found


def _rate(precision: str, conditions: Conditions) -> float:
    """Operations a second of one large product."""
    dtype = getattr(torch, precision)
    left = torch.randn(ROWS, WIDTH, device=conditions.device).to(dtype)
    right = torch.randn(WIDTH, WIDTH, device=conditions.device).to(dtype)
    times = [seconds(lambda: left @ right, conditions.device) for _ in range(30)]
    return 2 * ROWS * WIDTH * WIDTH / statistics.median(times[5:])
