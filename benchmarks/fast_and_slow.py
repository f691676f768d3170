"""Whether what makes training fast costs accuracy: the same default adapters, trained with all of it and with none.

The slow path decodes every view again for every batch and runs it through the whole tower in fp32, with every token in
the last layer and the dense gradient of every weight. The fast path keeps what enters the first adapted layer, runs in
the half precision that the processor has, computes the class token alone in the last layer, and takes the gradients
of entries alone. Both see the same pictures in the same order. ``python -m benchmarks.fast_and_slow`` measures what
is missing, ``--table`` draws the table.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.accuracy.__main__ import base_of, laid_out
from benchmarks.accuracy.ours import run_ours
from benchmarks.accuracy.results import Key, measured, right
from benchmarks.accuracy.stages import CACHE, STAGES
from benchmarks.cell import open_cell
from benchmarks.trials import read
from kusabi.files import write_bytes
from kusabi.recipes.environment import environment
from kusabi.spec_file import build, overlay

TASKS, SHOTS, SEEDS = ("fashion", "easy_vqa", "digits"), (4, 16), (0, 1, 2)
RESULTS = Path("benchmarks/results/fast_and_slow.jsonl")
PATHS = ("fast", "slow")

Lines = Mapping[tuple[Key, str], Mapping[str, Any]]


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, or draw the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fast_and_slow", description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="from what is measured")
    asked = parser.parse_args(words)
    if not asked.table:
        torch.set_num_threads(asked.threads)
        for task in TASKS:
            _measure(task, laid_out(task, STAGES["a"], asked.cache))
    text = table(lines_of(RESULTS))
    write_bytes(RESULTS.with_suffix(".md"), text.encode())
    print(text)


@contextmanager
def slowly() -> Iterator[None]:
    """Nothing that makes training fast, but for the precision, which a spec says."""
    patches = {
        "kusabi.training.views.CACHE_BYTES": 0,
        "kusabi.training.views.class_token_alone": nullcontext,
        "kusabi.training.forward.class_token_alone": nullcontext,
        "kusabi.training.fit.plain_layers": lambda *_: None,
    }
    with ExitStack() as stack:
        for name, instead in patches.items():
            stack.enter_context(patch(name, instead))
        yield


def measure(folder: Path, base: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Train and judge one adapter.

    Args:
        folder: The task's pictures.
        base: Fields of the spec.
        path: ``fast`` or ``slow``.
    """
    slow = path == "slow"
    spec = build(overlay(base, {"training": {"precision": "float32"}}) if slow else base)
    with slowly() if slow else nullcontext():
        cell = open_cell(folder, spec)
        answers = run_ours(cell, spec)
    return {"precision": cell.question.precision, **measured(answers, cell.query.labels.cpu().numpy())}


def _measure(task: str, folder: Path) -> None:
    done = lines_of(RESULTS)
    for seed, shots, path in product(SEEDS, SHOTS, PATHS):
        key = (task, shots, seed)
        if (key, path) in done:
            continue
        line = {"task": task, "shots": shots, "seed": seed, "path": path,
                **measure(folder, base_of(STAGES["a"], key), path),
                "threads": torch.get_num_threads(), "environment": environment()}  # fmt: skip
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{task}, {shots} shots, seed {seed}, {path}: {line['accuracy']:.3f} ({line['seconds']:.0f} s)", flush=True
        )


def lines_of(path: Path) -> Lines:
    """Everything measured."""
    return {((line["task"], line["shots"], line["seed"]), line["path"]): line for line in read(path)}


def table(lines: Lines) -> str:
    """Means over the seeds that both paths have, their difference beside the spread of seeds, as Markdown."""
    processors = sorted({line["environment"]["processor"] for line in lines.values()})
    rows = [
        "# Fast and slow training",
        "",
        f"{(__doc__ or '').strip()}",
        "",
        f"Accuracy in per cent, mean of {len(SEEDS)} draws of labelled pictures; seconds are medians of learning on "
        f"one thread. The spread is the standard deviation of the fast path over draws. {', '.join(processors)}.",
        "",
        "| task | labels a class | fast | slow | fast minus slow | in each draw | spread over draws | same verdict | "
        "fast, s | slow, s |",
        "| --- |" + " ---: |" * 9,
    ]
    for task, shots in product(TASKS, SHOTS):
        keys = [key for seed in SEEDS if all(((key := (task, shots, seed)), path) in lines for path in PATHS)]
        if not keys:
            continue
        pairs = [tuple(lines[key, path] for path in PATHS) for key in keys]
        fast, slow = (100 * np.array([pair[i]["accuracy"] for pair in pairs]) for i in range(2))
        same = np.mean([np.mean(right(one) == right(other)) for one, other in pairs])
        seconds = [np.median([pair[i]["seconds"] for pair in pairs]) for i in range(2)]
        spread = f"{fast.std(ddof=1):.1f}" if len(keys) > 1 else "–"
        rows.append(
            f"| {task} | {shots} | {fast.mean():.1f} | {slow.mean():.1f} | {(fast - slow).mean():+.1f} | "
            f"{', '.join(f'{d:+.1f}' for d in fast - slow)} | {spread} | {100 * same:.1f} % | "
            f"{seconds[0]:.1f} | {seconds[1]:.1f} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
