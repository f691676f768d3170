"""Tables and plots of the results: ``python -m benchmarks.accuracy.tables`` writes them beside the JSON lines."""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.accuracy.__main__ import METHODS
from benchmarks.accuracy.harder_tables import page_corrupted, page_new, page_published
from benchmarks.accuracy.ours import OURS
from benchmarks.accuracy.plots import draw
from benchmarks.accuracy.ranks import draw_ranks, ranks
from benchmarks.accuracy.results import read_lines
from benchmarks.accuracy.stages import STAGES, Stage
from benchmarks.accuracy.summary import (
    Lines,
    best_peer,
    cell_mean,
    difference,
    headline,
    mean_over,
    worst_against_zero_shot,
)
from benchmarks.accuracy.tasks import ONE_POOL, TASKS
from benchmarks.development import DEVELOPMENT
from benchmarks.peers import PEERS
from kusabi.files import write_bytes

TITLES = {**{name: title for name, (title, _) in OURS.items()}, **{name: peer.title for name, peer in PEERS.items()}}


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.tables", description=__doc__)
    parser.add_argument("--stage", choices=[name for name in STAGES if name != "quick"], default="a")
    parser.add_argument("--results", type=Path, help="folder of the lines; that of the stage when absent")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), help="those of the stage when absent")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help="all when absent"
    )
    parser.add_argument("--shots", nargs="+", type=int, help="those of the stage when absent")
    parser.add_argument("--seeds", nargs="+", type=int, help="those of the stage when absent")
    asked = parser.parse_args(words)
    asked.results = asked.results or STAGES[asked.stage].out
    lines: Lines = {method: found for method in asked.methods if (found := read_lines(asked.results, method))}
    stage = STAGES[asked.stage]
    stage = replace(
        stage, tasks=asked.tasks or stage.tasks, shots=asked.shots or stage.shots, seeds=asked.seeds or stage.seeds
    )
    out = asked.results.parent / f"accuracy_stage_{asked.stage}.md"
    if stage.variant != "plain":
        write_bytes(out, _harder(lines, stage).encode())
        print(out)
        return
    lines = _of_cells(lines, stage.tasks, stage.shots, stage.seeds)
    write_bytes(out, page(lines, stage.tasks, stage.shots, stage.seeds, asked.methods).encode())
    draw(lines, TITLES, stage.tasks, stage.shots, stage.seeds, out.with_suffix(".svg"))
    draw_ranks(lines, TITLES, stage.tasks, stage.shots, stage.seeds, out.with_name(f"{out.stem}_ranks.svg"))
    print(out)


def _harder(lines: Lines, stage: Stage) -> str:
    asked = (TITLES, stage.tasks, stage.shots, stage.seeds)
    match stage.variant:
        case "published":
            first = STAGES["a"].out
            return page_published(lines, {method: read_lines(first, method) for method in ("kusabi", *lines)}, *asked)
        case "corrupted":
            return page_corrupted(lines, *asked)
        case _:
            return page_new(lines, *asked)


def _of_cells(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> Lines:
    """Those that are asked for: other stages write into the same files."""
    keys = set(product(tasks, shots, seeds))
    return {
        method: {key: line for key, line in of.items() if key in keys}
        for method, of in lines.items()
        if keys & of.keys()
    }


def page(
    lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int], methods: Sequence[str] = METHODS
) -> str:
    """The results as Markdown; ``methods`` are those that are to be measured."""
    judged = headline(tasks)
    lines = _of_cells(lines, tasks, shots, seeds)
    done = sum(map(len, lines.values()))
    whole = len(methods) * len(tasks) * len(shots) * len(seeds)
    return "\n\n".join(
        [
            "# Accuracy beside the peers",
            f"{done:,} of {whole:,} runs are in, of tasks {', '.join(tasks)} and seeds {', '.join(map(str, seeds))}. A "
            "dash stands where runs are missing; means are over all these seeds and all tasks of their column, or are "
            f"not given. {_processors(lines)}",
            "## Mean per shots",
            f"Headline tasks: {', '.join(judged)}. Defaults, ours and theirs, were chosen on "
            f"{', '.join(task for task in tasks if task in DEVELOPMENT)}: apart. Before these were settled on, digits "
            "(`depth.md`), textile (`kinds.md`, `fabrics_depth.md`), easy_vqa_shape and easy_vqa_colour "
            "(`telling_names.md`) had been looked at: they are judges, but no untouched ones.",
            _means(lines, tasks, shots, seeds),
            "## Are the probabilities worth anything",
            "Log-loss in nats, the mean over query pictures of minus the logarithm of what the right class was given: "
            "lower is better, and being sure of a wrong answer costs most. One default of ours was chosen by it, on "
            "development tasks: how sure the final classifier may be.",
            _log_losses(lines, tasks, shots, seeds),
            "## Ours against the best peer",
            f"The best peer of each column is named with hindsight, in its favour. {_limits(tasks, seeds)}",
            _differences(lines, tasks, shots, seeds),
            *(
                part
                for task in tasks
                for part in (f"## {task}", _of_task(lines, task, shots, seeds))
            ),
            "## Cost, and the worst case",
            "Place: mean over headline tasks and shots, among methods that are measured everywhere. Other columns are "
            "means over the cells of this page that were measured; the worst case is the lowest mean difference to "
            "zero-shot.",
            _costs(lines, ranks(lines, tasks, shots, seeds), seeds),
            "Generated by `python -m benchmarks.accuracy.tables` from the JSON lines in `accuracy/`.\n",
        ]
    )  # fmt: skip


def _limits(tasks: Sequence[str], seeds: Sequence[int]) -> str:
    """What the intervals are, and what they leave out."""
    said = ["Points, with 95 % intervals."]
    pools = [", ".join(shared) for pool in ONE_POOL if len(shared := [task for task in tasks if task in pool]) > 1]
    if pools:
        said.append(
            f"Of one pool of pictures are {'; '.join(pools)}: not independent, so that the interval of the headline "
            "mean is too narrow."
        )
    if len(seeds) == 1:
        said.append(
            "With one seed they tell of other query pictures alone: another draw of labelled pictures would move the "
            "differences further."
        )
    return " ".join(said)


def _processors(lines: Lines) -> str:
    """Last bits, and now and then an answer, depend on the processor."""
    shown = [line for of in lines.values() for line in of.values()]
    ran, hours = Counter(line["processor"] for line in shown), sum(line["seconds"] for line in shown) / 3600
    return (
        f"Runs by processor: {', '.join(f'{name} {count:,}' for name, count in ran.most_common())}. Learning took "
        f"{hours:.1f} processor hours in all; pictures, frozen features and queries come on top."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _ranked(
    values: Mapping[str, Sequence[float | None]], shown: Callable[[float | None], str] = _percent, sign: int = -1
) -> list[list[str]]:
    """Rows, best first by the mean of what is there (the lowest with ``sign`` 1); rows with gaps after whole ones."""

    def place(method: str) -> tuple[int, float]:
        there = [value for value in values[method] if value is not None]
        return (len(values[method]) - len(there), sign * float(np.mean(there)) if there else 0.0)

    return [
        [f"**{TITLES[method]}**" if method in OURS else TITLES[method], *map(shown, values[method])]
        for method in sorted(values, key=place)
        if any(value is not None for value in values[method])
    ]  # fmt: skip


def _means(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> str:
    head, values = _by_group(lines, tasks, shots, seeds, "accuracy")
    return _table(head, _ranked(values))


def _log_losses(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> str:
    head, values = _by_group(lines, tasks, shots, seeds, "log_loss")
    return _table(head, _ranked(values, lambda value: "–" if value is None else f"{value:.2f}", 1))


def _by_group(
    lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int], what: str
) -> tuple[list[str], dict[str, list[float | None]]]:
    """Head and values: means over the headline and the development tasks, number of shots by number of shots."""
    groups = {"headline": headline(tasks), "development": [task for task in tasks if task in DEVELOPMENT]}
    head = ["method", *(f"{name}, {n} shots" for name in groups for n in shots)]
    values = {
        method: [mean_over(of, group, n, seeds, what) for group in groups.values() for n in shots]
        for method, of in lines.items()
    }
    return head, values


def _differences(lines: Lines, tasks: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> str:
    groups = [("headline mean", headline(tasks)), *((task, [task]) for task in tasks)]
    rows = []
    for name, group in groups:
        row = [name]
        for n in shots:
            row.append(_difference(lines, group, n, seeds))
        rows.append(row)
    return _table(["task", *(f"{n} shots" for n in shots)], rows)


def _difference(lines: Lines, tasks: Sequence[str], shots: int, seeds: Sequence[int]) -> str:
    peer = best_peer(lines, tasks, shots, seeds)
    if peer is None or (found := difference(lines.get("kusabi", {}), lines[peer], tasks, shots, seeds)) is None:
        return "–"
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f}), {TITLES[peer]}"


def _of_task(lines: Lines, task: str, shots: Sequence[int], seeds: Sequence[int]) -> str:
    values = {method: [cell_mean(of, task, n, seeds) for n in shots] for method, of in lines.items()}
    return _table(["method", *(f"{n} shots" for n in shots)], _ranked(values))


def _costs(lines: Lines, places: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> str:
    rows = []
    for method in (*places, *(method for method in lines if method not in places)):
        of, place = lines[method], f"{np.mean(places[method]):.1f}" if method in places else "–"
        worst = worst_against_zero_shot(lines, method, seeds)
        mean = {name: np.mean([line[name] for line in of.values()]) for name in ("trained", "stored_bytes", "seconds")}
        rows.append([
            TITLES[method], place, f"{mean['trained']:,.0f}", f"{mean['stored_bytes'] / 1000:,.1f}",
            f"{mean['seconds']:.1f}",
            f"{worst[0]:+.1f} ({worst[1]}, {worst[2]} shots)" if worst else "–",
        ])  # fmt: skip
    return _table(["method", "place", "trained numbers", "kB", "processor seconds", "worst against zero-shot"], rows)


if __name__ == "__main__":
    main()
