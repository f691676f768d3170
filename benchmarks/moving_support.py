"""Does a bounded budget keep the gain of a moving support? The first experiment, on the two development tasks.

From a centre (K = 0.1 % of the targeted weights, half of the entering entries random, a move every 10 updates) one
factor at a time, then a grid around the best; static supports and the unbounded SO stand beside them.

``python -m benchmarks.moving_support`` adds one line per run to the results; stopped and started again, it goes on
where it was. ``--table`` prints the means from what is there.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cell import QuerySide, open_cell
from benchmarks.development import DEVELOPMENT
from benchmarks.pool import balanced, lay_out
from kusabi.recipes.environment import environment
from kusabi.spec import AdaptSpec, build, overlay
from kusabi.training.learn import learn

RESULTS = Path("benchmarks/results/moving_support.jsonl")
CACHE = Path(".cache/benchmarks")
SHOTS, SEEDS, QUERY = (1, 4, 16), (0, 1, 2), 500
STEPS, RATE, SHARE, WINDOW = 100, 3e-3, 0.3, 5
"""Updates; step size; share that is replaced (RigL, arXiv 1911.11134); updates whose gradients say what enters."""


def moving(percent: float, rho: float, every: int) -> dict[str, Any]:
    """A bounded moving support, as fields of a spec."""
    return {
        "adapter": {"density": percent / 100, "support_rule": "gradient" if rho < 1 else "random"},
        "moves": {
            "move_every": every, "move_share": SHARE, "move_random": rho, "move_window": min(WINDOW, every),
        },
    }  # fmt: skip


def static(percent: float, rule: str) -> dict[str, Any]:
    """A support that stays."""
    return {"adapter": {"density": percent / 100, "support_rule": rule}}


Settings = Mapping[str, Mapping[str, Any]]


def _moving(settings: Sequence[tuple[float, float, int]]) -> Settings:
    return {f"moving K={k}% rho={rho} T={every}": moving(k, rho, every) for k, rho, every in settings}


FIRST: Settings = {
    **_moving([(0.1, 0.5, 10), (0.01, 0.5, 10), (1, 0.5, 10)]),
    **_moving([(0.1, 0, 10), (0.1, 1, 10), (0.1, 0.5, 5), (0.1, 0.5, 20)]),
    "static gradient K=0.1%": static(0.1, "gradient"),
    "static gradient K=1%": static(1, "gradient"),
    "static random K=0.1%": static(0.1, "random"),
    "SO, unbounded, 0.05% T=10": {
        "adapter": {"density": 0.0005, "support_rule": "random"}, "moves": {"move_every": 10, "move_union": True},
    },
}  # fmt: skip
GRID: Settings = _moving([(1, rho, every) for every in (5, 10) for rho in (0, 0.5, 1)])
SETTINGS: Settings = FIRST | GRID


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving_support", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--tasks", nargs="+", default=list(DEVELOPMENT), choices=list(DEVELOPMENT))
    parser.add_argument("--threads", type=int, help="of each process; one per task and core is quickest")
    parser.add_argument("--table", action="store_true", help="print the means and measure nothing")
    asked = parser.parse_args(words)
    if asked.table:
        print(table(read(asked.out)))
        return
    command = shlex.join(["python", "-m", "benchmarks.moving_support", *(sys.argv[1:] if words is None else words)])
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for settings in (FIRST, GRID):
        for name in asked.tasks:
            _measure(name, settings, asked, command)


def _measure(name: str, settings: Settings, asked: argparse.Namespace, command: str) -> None:
    """What is missing of one task."""
    task, folder = DEVELOPMENT[name], asked.cache / "pictures" / f"development-{name}"
    learned, judged = task.pictures(asked.cache)
    lay_out(learned, balanced(judged, QUERY), folder)
    done = {_key(line) for line in read(asked.out)}
    query: QuerySide | None = None
    for shots, seed in product(SHOTS, SEEDS):
        missing = [setting for setting in settings if (name, shots, seed, setting) not in done]
        if not missing:
            continue
        cell = open_cell(folder, spec_of(task.input_size, shots, seed, {}), query)
        query, peers = cell.query, cell.peers()
        for setting in missing:
            spec = spec_of(task.input_size, shots, seed, SETTINGS[setting])
            found = learn(cell.setting(spec), cell.views)
            line = {
                "task": name, "shots": shots, "seed": seed, "setting": setting, "accuracy": cell.accuracy(found),
                "entries": sum(map(len, found.parts)), "peers": peers, "query_pictures": len(query.labels),
                "spec": spec.digest, "backbone": cell.question.backbone.card()["digest"],
                "environment": environment(), "command": command,
            }  # fmt: skip
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name}, {shots} shots, seed {seed}, {setting}: {line['accuracy']:.3f}", flush=True)


def spec_of(input_size: int, shots: int, seed: int, fields: Mapping[str, Any]) -> AdaptSpec:
    """A setting on a cell."""
    base = {
        "seed": seed, "backbone": {"input_size": input_size}, "data": {"shots": shots},
        "training": {"steps": STEPS, "learning_rate": RATE},
    }  # fmt: skip
    return build(overlay(base, fields))


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["task"], line["shots"], line["seed"], line["setting"]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracy per task and shots, in per cent, as Markdown; entries are those of the last run."""
    columns = [(name, shots) for name in DEVELOPMENT for shots in SHOTS]
    rows = ["| setting | entries | " + " | ".join(f"{n}, {s}" for n, s in columns) + " | mean |"]
    rows.append("| --- |" + " ---: |" * (len(columns) + 2))
    cells: dict[str, dict[tuple[str, int], list[float]]] = {}
    entries: dict[str, str] = {}
    for line in lines:
        at = (line["task"], line["shots"])
        cells.setdefault(line["setting"], {}).setdefault(at, []).append(line["accuracy"])
        entries[line["setting"]] = f"{line['entries']:,}"
        if line["setting"] == next(iter(SETTINGS)):
            for peer, accuracy in line["peers"].items():
                cells.setdefault(peer.replace("_", " "), {}).setdefault(at, []).append(accuracy)
    for setting, found in sorted(cells.items(), key=lambda item: -_mean(item[1])):
        shown = [f"{100 * np.mean(found[at]):.1f}" if at in found else "" for at in columns]
        rows.append(f"| {setting} | {entries.get(setting, '')} | {' | '.join(shown)} | {100 * _mean(found):.2f} |")
    return "\n".join(rows)


def _mean(found: Mapping[tuple[str, int], Sequence[float]]) -> float:
    return float(np.mean([np.mean(accuracies) for accuracies in found.values()]))


if __name__ == "__main__":
    main()
