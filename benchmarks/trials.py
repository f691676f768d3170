"""Many settings on the two development tasks: one line per run in a results file, taken up where it was stopped."""

import argparse
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cell import QuerySide, open_cell
from benchmarks.development import DEVELOPMENT
from benchmarks.pool import balanced, lay_out
from benchmarks.tasks import Task
from kusabi.files import write_bytes
from kusabi.recipes.environment import environment
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build, overlay
from kusabi.training.learn import Start, learn, rescale, starting
from kusabi.training.scale_choice import choose_scales

CACHE = Path(".cache/benchmarks")
QUERY = 500

_LEGEND = (
    "Accuracy in per cent on pictures held out from the development tasks, mean over seeds; last the mean "
    "of the row, with a star where runs are missing. Generated with `--table` from the `.jsonl` of the same name."
)

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Trials:
    """An experiment: ``rounds`` of settings (name -> fields of a spec), each finished before the next.

    ``lowest`` are the fields of a setting that begins at the lowest layer of all.
    """

    name: str
    about: str
    rounds: Sequence[Settings]
    shots: Sequence[int]
    seeds: Sequence[int]
    base: Mapping[str, Any]
    lowest: Mapping[str, Any] = field(default_factory=dict)
    more_tasks: Mapping[str, Task] = field(default_factory=dict)
    only: Mapping[str, Task] = field(default_factory=dict)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The development tasks and what was made of them for this experiment, or ``only`` the latter."""
        return self.only or {**DEVELOPMENT, **self.more_tasks}

    @property
    def results(self) -> Path:
        """One JSON line per run."""
        return Path(f"benchmarks/results/{self.name}.jsonl")

    @property
    def settings(self) -> Settings:
        """Those of all rounds."""
        return {name: fields for settings in self.rounds for name, fields in settings.items()}

    def spec(self, input_size: int, shots: int, seed: int, fields: Mapping[str, Any]) -> AdaptSpec:
        """A setting on a cell."""
        cell = {"seed": seed, "backbone": {"input_size": input_size}, "data": {"shots": shots}}
        return build(overlay(overlay(cell, self.base), fields))


def main(trials: Trials, words: Sequence[str] | None = None) -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{trials.name}", description=trials.about)
    parser.add_argument("--out", type=Path, default=trials.results)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--tasks", nargs="+", default=list(trials.tasks), choices=list(trials.tasks))
    parser.add_argument("--threads", type=int, help="of each process; one per task and core is quickest")
    parser.add_argument(
        "--table", action="store_true", help="print the means, write them beside the results, and measure nothing"
    )
    asked = parser.parse_args(words)
    if asked.table:
        found = table(trials, read(asked.out))
        page = f"# {trials.name.replace('_', ' ').capitalize()}\n\n{trials.about.strip()}\n\n{found}\n\n{_LEGEND}\n"
        write_bytes(asked.out.with_suffix(".md"), page.encode())
        print(found)
        return
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    threads = [] if asked.threads is None else ["--threads", str(asked.threads)]  # folders of a machine are left out
    command = shlex.join(["python", "-m", f"benchmarks.{trials.name}", "--tasks", *asked.tasks, *threads])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for settings in trials.rounds:
        for task in asked.tasks:
            _measure(trials, task, settings, asked, command)


def _measure(trials: Trials, name: str, settings: Settings, asked: argparse.Namespace, command: str) -> None:
    """What is missing of one task."""
    task, folder = trials.tasks[name], asked.cache / "pictures" / f"development-{name}"
    learned, judged = task.pictures(asked.cache)
    lay_out(learned, balanced(judged, QUERY), folder)
    done = {_key(line) for line in read(asked.out)}
    queries: dict[int | None, QuerySide] = {}
    for shots, seed in product(trials.shots, trials.seeds):
        missing = [setting for setting in settings if (name, shots, seed, setting) not in done]
        if not missing:
            continue
        lowest = open_cell(folder, trials.spec(task.input_size, shots, seed, trials.lowest), queries.get(None))
        queries[None], peers = lowest.query, lowest.peers()
        starts: dict[tuple[str, int], Start] = {}
        for setting in missing:
            spec = trials.spec(task.input_size, shots, seed, settings[setting])
            layer = lowest.first_layer(spec)
            cell = lowest.carried(layer, queries.get(layer))
            queries[layer] = cell.query
            at = (spec.adapter.head, spec.safety.cross_fit)
            start = starts[at] = starts.get(at) or starting(cell.setting(spec), cell.views)
            found = learn(cell.setting(spec), cell.views, start=start)
            scales = choose_scales(cell.setting(spec), cell.views)
            rescale(cell.setting(spec), cell.views, found, scales.alpha, scales.head_alpha)
            line = {
                "task": name, "shots": shots, "seed": seed, "setting": setting, "accuracy": cell.accuracy(found),
                "entries": sum(map(len, found.parts)), "steps": found.steps,
                "scales": [scales.alpha, scales.head_alpha], "peers": peers, "query_pictures": len(cell.query.labels),
                "spec": spec.digest, "backbone": cell.question.backbone.card()["digest"],
                "environment": environment(), "command": command,
            }  # fmt: skip
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name}, {shots} shots, seed {seed}, {setting}: {line['accuracy']:.3f}", flush=True)


def asked_of(
    results: Path, about: str, legend: str, table: Callable[[Sequence[Mapping[str, Any]]], str]
) -> argparse.Namespace | None:
    """What a program of a single experiment is asked to measure; None once it has written its table instead.

    Args:
        results: Its JSON lines, named like the program.
        about: What it is for.
        legend: Below the table.
        table: Of the lines, as Markdown.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{results.stem}", description=about)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", action="store_true", help="write the means beside the results, and measure nothing")
    asked = parser.parse_args()
    if asked.table:
        title = results.stem.replace("_", " ").capitalize()
        page = f"# {title}\n\n{about.strip()}\n\n{table(read(results))}\n\n{legend}\n"
        write_bytes(results.with_suffix(".md"), page.encode())
        return None
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    return asked


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["task"], line["shots"], line["seed"], line["setting"]


def table(trials: Trials, lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracy per task and shots, in per cent, as Markdown, best first; a star: runs are missing."""
    columns = list(product(trials.tasks, trials.shots))
    cells: dict[str, dict[tuple[str, int], list[float]]] = {}
    entries: dict[str, str] = {}
    first = next(iter(trials.settings))
    for line in lines:
        at = (line["task"], line["shots"])
        cells.setdefault(line["setting"], {}).setdefault(at, []).append(line["accuracy"])
        entries[line["setting"]] = f"{line['entries']:,}"
        for peer, accuracy in line["peers"].items() if line["setting"] == first else ():
            cells.setdefault(peer.replace("_", " "), {}).setdefault(at, []).append(accuracy)
    rows = ["| setting | entries | " + " | ".join(f"{n}, {s}" for n, s in columns) + " | mean |"]
    rows.append("| --- |" + " ---: |" * (len(columns) + 2))
    for setting, found in sorted(cells.items(), key=lambda item: -_mean(item[1])):
        whole = all(len(found.get(at, ())) == len(trials.seeds) for at in columns)
        shown = [f"{100 * np.mean(found[at]):.1f}" if at in found else "" for at in columns]
        mean = f"{100 * _mean(found):.2f}" + ("" if whole else " *")
        rows.append(f"| {setting} | {entries.get(setting, '')} | {' | '.join(shown)} | {mean} |")
    return "\n".join(rows)


def _mean(found: Mapping[tuple[str, int], Sequence[float]]) -> float:
    return float(np.mean([np.mean(accuracies) for accuracies in found.values()]))
