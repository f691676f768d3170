"""Measure what is missing of a stage: ``python -m benchmarks.accuracy --stage a``; stopped, it goes on where it was.

Stage a: every method, five tasks, shots 1, 4 and 16, three seeds. Stage b: ours and the best peers of the development
tasks, all tasks, five seeds. Stages corrupted and new ask the same methods harder questions. Stage published gives
methods the schedules of their papers, to see what a hundred updates cost them. Stage classic is for those who have the
eleven data sets of the papers and a model that papers use: ``--backbone openai/clip-vit-base-patch16``. Several
processes may share the work by ``--tasks``.
"""

import argparse
import fcntl
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.harder import base_to_new, corrupted_side, extras
from benchmarks.accuracy.ours import OURS, run_ours, spec_of
from benchmarks.accuracy.published import PUBLISHED, run_published, steps_of
from benchmarks.accuracy.results import SCHEMA, Key, append, code, measured, missing, read_lines
from benchmarks.accuracy.stages import CACHE, STAGES, Stage
from benchmarks.accuracy.summary import headline, leading_peers
from benchmarks.accuracy.tasks import TASKS
from benchmarks.cell import Cell, QuerySide, cell_of, open_cell
from benchmarks.origin import content_digest
from benchmarks.peers import PEERS
from benchmarks.peers.answers import Answers
from benchmarks.peers.material import Material, gather
from benchmarks.pool import balanced, lay_out
from kusabi.recipes.environment import environment
from kusabi.spec_file import build

HERE = Path(__file__).parents[1]
METHODS = (*OURS, *PEERS)
LEADING = ("kusabi", "kusabi-text", "kusabi:lora", "kusabi:supra", "kusabi:sparse-adapter", "kusabi:mosa")
BEST = 4  # peers that meet them in all stages but a


def main(words: Sequence[str] | None = None) -> None:
    """Measure, or check one result again."""
    asked = arguments(words)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    stage: Stage = STAGES[asked.stage].of(asked.backbone)
    if asked.check:
        check(stage, asked.check, asked.cache)
        return
    if asked.methods is None:
        asked.methods = methods_of(asked.stage)
    deadline = time.monotonic() + 60 * asked.minutes if asked.minutes else float("inf")
    for task in asked.tasks or stage.tasks:
        measure(stage, task, asked, deadline)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--stage", choices=list(STAGES), default="a")
    parser.add_argument("--tasks", type=_known(TASKS), help="comma-separated; those of the stage when absent")
    parser.add_argument("--methods", type=_known(METHODS), help="comma-separated; those of the stage when absent")
    parser.add_argument("--shots", type=_numbers, help="those of the stage when absent")
    parser.add_argument("--seeds", type=_numbers, help="those of the stage when absent")
    parser.add_argument("--minutes", type=float, help="begin no cell after so many")
    parser.add_argument("--threads", type=int, help="of this process; one per core and task is quickest")
    parser.add_argument(
        "--backbone", help="model folder or Hub id, at its own input size; the embedded one when absent"
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument(
        "--check", nargs=4, metavar=("TASK", "METHOD", "SHOTS", "SEED"),
        help="measure one committed result again and compare",
    )  # fmt: skip
    return parser.parse_args(words)


def methods_of(name: str) -> list[str]:
    """Methods of a stage: all, those with a schedule, or ours and the best peers.

    All in stages a, quick and classic, those with a schedule in published; else zero-shot, ours, and the peers that
    were best on the development tasks.

    Raises:
        SystemExit: When stage a lacks runs of the development tasks.
    """
    if name in ("a", "quick", "classic"):
        return list(METHODS)
    if name == "published":
        return list(PUBLISHED)
    first = STAGES["a"]
    lines = {method: read_lines(first.out, method) for method in PEERS}
    tasks = [task for task in first.tasks if task not in headline(first.tasks)]
    peers, lacking = leading_peers(lines, tasks, first.shots, first.seeds, BEST)
    if lacking:
        raise SystemExit(
            f"stage {name} takes the {BEST} best peers of stage a on {' and '.join(tasks)}; runs are missing there of "
            f"{', '.join(lacking)}: measure them first, or name --methods"
        )
    return [method for method in METHODS if method in ("zero_shot", *LEADING, *peers)]


def measure(stage: Stage, task: str, asked: argparse.Namespace, deadline: float) -> None:
    """What is missing of a task, seed by seed, few shots first."""
    folder = laid_out(task, stage, asked.cache)
    query: QuerySide | None = None
    for seed, shots in product(asked.seeds or stage.seeds, asked.shots or stage.shots):
        key = (task, shots, seed)
        left = missing(stage.out, asked.methods, key)
        if not left or time.monotonic() > deadline:
            continue
        cell, material = opened(folder, stage, key, query)
        query = cell.query
        for method in left:
            line = line_of(method, cell, material, stage, key)
            append(stage.out, line)
            print(f"{task}, {shots} shots, seed {seed}, {method}: {line['accuracy']:.3f} "
                  f"({line['seconds']:.0f} s)", flush=True)  # fmt: skip


def laid_out(task: str, stage: Stage, cache: Path) -> Path:
    """The task as an ordinary folder, named by the code that draws it: whoever comes first lays it out, once."""
    drawing = content_digest([*HERE.glob("*.py"), HERE / "accuracy" / "tasks.py"], HERE)[:8]
    folder = cache / "pictures" / f"accuracy-{task}-{stage.query}-{drawing}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".accuracy-{task}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            learned, judged = TASKS[task].pictures(cache)
            lay_out(learned, balanced(judged, stage.query), folder)
    return folder


def opened(folder: Path, stage: Stage, key: Key, query: QuerySide | None) -> tuple[Cell, Material]:
    """What all methods of a cell share."""
    spec, new_prompts = build(base_of(stage, key)), ()
    if stage.variant == "base_to_new":
        question, new_prompts = base_to_new(folder, spec)
        cell = cell_of(question, spec, query)
    elif stage.variant == "corrupted":
        cell = cell_of(corrupted_side(folder, spec), spec, query)
    else:
        cell = open_cell(folder, spec, query)
    question, (_, shots, seed) = cell.question, key
    material = gather(
        question.backbone, question.dataset, question.split.support, question.split.query,  # type: ignore[union-attr]
        question.prompts, shots=shots, seed=seed, steps=stage.steps, precision=question.precision,
        words=question.dataset.classes, new_prompts=new_prompts,
    )  # fmt: skip
    return cell, material


def base_of(stage: Stage, key: Key) -> dict[str, Any]:
    """Fields of a spec that the cell decides."""
    task, shots, seed = key
    own = {"input_size": TASKS[task].input_size} if stage.backbone == "mini" else {}
    backbone = {"backbone": stage.backbone, **own}
    return {
        "seed": seed, "backbone": backbone, "data": {"shots": shots},
        "training": {"steps": stage.steps},
    }  # fmt: skip


def line_of(method: str, cell: Cell, material: Material, stage: Stage, key: Key) -> dict[str, Any]:
    """Run a method in a cell."""
    task, shots, seed = key
    answers = _answers(method, cell, material, stage, key)
    facts = environment()
    return {
        "schema": SCHEMA, "method": method, "task": task, "shots": shots, "seed": seed,
        "steps": steps_of(method, shots) if stage.variant == "published" else stage.steps,
        **measured(answers, (labels := cell.query.labels.cpu().numpy())),
        **extras(stage.variant, answers, labels, material.classes),
        "data": cell.question.dataset.digest, "backbone": cell.question.backbone.digest, "code": code(),
        "threads": torch.get_num_threads(), **{name: facts[name] for name in ("processor", "torch", "transformers")},
    }  # fmt: skip


def _answers(method: str, cell: Cell, material: Material, stage: Stage, key: Key) -> Answers:
    if stage.variant == "published":
        return run_published(method, material)
    if method in PEERS:
        return PEERS[method].run(material)
    return run_ours(cell, spec_of(method, base_of(stage, key)), material.new_prompts)


def check(stage: Stage, asked: Sequence[str], cache: Path) -> None:
    """Measure one result again; exit code 1 if it is another."""
    task, method, key = asked[0], asked[1], (asked[0], int(asked[2]), int(asked[3]))
    if (kept := read_lines(stage.out, method).get(key)) is None:
        raise SystemExit(f"{method}, {key}: not among the results in {stage.out}")
    torch.set_num_threads(kept["threads"])
    cell, material = opened(laid_out(task, stage, cache), stage, key, None)
    line = line_of(method, cell, material, stage, key)
    same = line["right"] == kept["right"]
    differing = [name for name in ("data", "backbone", "code", "processor", "torch") if line[name] != kept[name]]
    print(f"committed {kept['accuracy']:.4f}, now {line['accuracy']:.4f}: {'the same' if same else 'NOT the same'} "
          f"answers{'; differs in ' + ', '.join(differing) if differing else ''}")  # fmt: skip
    raise SystemExit(0 if same else 1)


def _known(names: Any) -> Any:
    def parse(text: str) -> list[str]:
        asked = text.split(",")
        if unknown := [name for name in asked if name not in names]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not known; choose from {', '.join(names)}")
        return asked

    return parse


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
