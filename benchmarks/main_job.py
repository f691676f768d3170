"""The main job on three tasks: each is laid out as an ordinary folder and adapted to exactly as a user would.

``python -m benchmarks.main_job`` measures everything; stopped and started again, it goes on where it was. Runs that are
finished are not taken again, unless code, backbone, versions, pictures or settings changed.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.origin import origin
from benchmarks.pool import balanced, lay_out
from benchmarks.summary import summary
from benchmarks.tasks import TASKS
from kusabi.evaluation.pool import WAYS
from kusabi.files import write_bytes
from kusabi.recipes.adapt import adapt
from kusabi.recipes.environment import environment
from kusabi.recipes.progress import progress
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build, overlay

RESULTS = Path("benchmarks/results/main_job.json")
CACHE = Path(".cache/benchmarks")
SCHEMA = 1


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write the results."""
    asked = arguments(words)
    asked.cache.mkdir(parents=True, exist_ok=True)
    tasks = [measured(name, asked) for name in asked.tasks]
    results = {
        "schema": SCHEMA,
        "command": shlex.join(["python", "-m", "benchmarks.main_job", *(sys.argv[1:] if words is None else words)]),
        "environment": environment(),
        "shots": asked.shots,
        "seeds": asked.seeds,
        "tasks": tasks,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(asked.out, (json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    print(f"{asked.out}; 'python -m benchmarks.tables' puts it into the READMEs")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.main_job", description=__doc__)
    parser.add_argument("--tasks", type=_names, default=list(TASKS), help="comma-separated; default: all")
    parser.add_argument("--shots", type=_numbers, default=[4, 16], help="labelled pictures a class; default: 4,16")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="default: 0,1,2")
    parser.add_argument("--query", type=int, default=300, help="at most so many pictures judge, balanced; default: 300")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"packages, pictures and runs; default: {CACHE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    trial = parser.add_argument_group("for a quick trial, which needs an --out of its own")
    trial.add_argument("--steps", type=int)
    trial.add_argument("--views", type=int)
    asked = parser.parse_args(words)
    if asked.out == RESULTS and (asked.steps, asked.views) != (None, None):
        parser.error("a trial with --steps or --views is no result: give another --out")
    return asked


def measured(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Every run of one task."""
    task = TASKS[name]
    learned, judged = task.pictures(asked.cache)
    if asked.query < len(judged):
        raise SystemExit(f"--query {asked.query}: {name} has {len(judged)} classes; give at least one picture a class")
    folder = asked.cache / "pictures" / name
    lay_out(learned, balanced(judged, asked.query), folder)
    runs = [
        [_run(name, folder, spec_of(name, shots, seed, asked), asked) for seed in asked.seeds] for shots in asked.shots
    ]
    first, spec = runs[0][0], spec_of(name, asked.shots[0], asked.seeds[0], asked).model_dump(mode="json")
    del spec["seed"], spec["data"]["shots"]
    return {
        "name": name,
        "package": task.package,
        "classes": first["task"]["classes"],
        "query_pictures": first["task"]["query_pictures"],
        "held_out": first["task"]["held_out"],
        "data_digest": first["task"]["data_digest"],
        "spec": spec,
        "backbone": first["backbone"],
        "results": [summary(of_shots) for of_shots in runs],
    }


def spec_of(name: str, shots: int, seed: int, asked: argparse.Namespace) -> AdaptSpec:
    """The defaults, but for what the task needs and what was asked."""
    fields: dict[str, Any] = {
        "seed": seed, "backbone": {"input_size": TASKS[name].input_size}, "data": {"shots": shots}
    }  # fmt: skip
    if asked.steps is not None:
        fields["training"] = {"steps": asked.steps}
    if asked.views is not None:
        fields = overlay(fields, {"data": {"views": asked.views}})
    return build(fields)


def _run(name: str, folder: Path, spec: AdaptSpec, asked: argparse.Namespace) -> dict[str, Any]:
    shots, seed, size = spec.data.shots, spec.seed, spec.backbone.input_size
    key = origin(spec, folder, asked.device, asked.threads)
    out = asked.cache / "runs" / f"{name}-{shots}-shots-seed-{seed}-{key}"
    command = f"kusabi adapt {folder} --shots {shots} --input-size {size} --seed {seed} --out {out}"
    with progress(asked.quiet) as watch:
        found = adapt(
            str(folder), spec, out, resume=True, device=asked.device, threads=asked.threads, command=command,
            watch=watch,
        )  # fmt: skip
    accuracies = ", ".join(f"{way} {found[way]['accuracy']:.3f}" for way in WAYS)
    print(f"{name}, {shots} shots, seed {seed}: {accuracies}", flush=True)
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not known; choose from {', '.join(TASKS)}")
    return names


if __name__ == "__main__":
    main()
