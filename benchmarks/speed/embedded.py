"""The embedded model as a user meets it: 84 pixels, ten classes of sixteen pictures, 200 updates."""

import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.pool import lay_out
from benchmarks.speed.clock import seconds
from benchmarks.speed.conditions import SHOTS, Conditions
from benchmarks.speed.models import prompts_of
from benchmarks.speed.pictures import dataset_of, drawn, examples
from benchmarks.speed.record import Record, spread
from kusabi.adapters.targets import plan
from kusabi.recipes.fit_support import fit_support
from kusabi.recipes.watch import silent
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build
from kusabi.training.precision import resolve

CLASSES, STEPS, SIDE, QUERY = 10, 200, 84, 5


def in_process(conditions: Conditions) -> list[Record]:
    """From pictures in memory to the adapter as stored, in a process that has the model loaded."""
    backbone = replace(conditions, model="mini", input_size=SIDE).load()
    spec, support = spec_of_job(), examples(CLASSES, SHOTS)
    weights = plan(backbone.module, backbone.blocks, spec.adapter)
    precision = resolve("auto", conditions.device)
    taken = [
        seconds(
            lambda: fit_support(
                backbone, dataset_of(CLASSES, support), support, prompts_of(CLASSES), weights, spec,
                precision=precision, watch=silent, run=None,
            ),
            conditions.device,
        )
        for _ in range(2 if conditions.quick else 5)
    ]  # fmt: skip
    found = spread(taken)
    return [Record("embedded_in_process", "mini", f"{STEPS} updates, {SIDE} pixels", found.median, asdict(found), {},
                   {"precision": precision})]  # fmt: skip


def from_the_shell(conditions: Conditions) -> list[Record]:
    """``kusabi adapt`` on a folder: start, pictures, training, evaluation, files."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "pictures"
        sides = [
            {f"kind {label}": [drawn(f"{label}/{number}") for number in numbers] for label in range(CLASSES)}
            for numbers in (range(SHOTS), range(SHOTS, SHOTS + QUERY))
        ]
        lay_out(sides[0], sides[1], folder)
        runs = [Path(made) / f"run-{number}" for number in range(1 if conditions.quick else 5)]
        taken = [_shell(folder, run, conditions) for run in runs]
    found = spread(taken)
    return [Record("embedded_shell", "mini", f"{STEPS} updates, {SIDE} pixels, {CLASSES * QUERY} judged", found.median,
                   asdict(found))]  # fmt: skip


def spec_of_job() -> AdaptSpec:
    """The defaults but for the updates and the upper half, which these pictures of nothing would leave."""
    return build({
        "training": {"steps": STEPS}, "data": {"shots": SHOTS}, "backbone": {"input_size": SIDE},
        "adapter": {"layers": "upper-half"},
    })  # fmt: skip


def _shell(folder: Path, out: Path, conditions: Conditions) -> float:
    command = [sys.executable, "-m", "kusabi.cli", "adapt", str(folder), "--shots", str(SHOTS), "--steps", str(STEPS),
               "--input-size", str(SIDE), "--layers", "upper-half", "--device", conditions.device, "--out", str(out),
               "--quiet"]  # fmt: skip
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True), "cpu")
