"""Ours and the best peers of the accuracy benchmark, as Markdown, from its JSON lines: what is complete so far."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from benchmarks.accuracy.stages import STAGES
from benchmarks.accuracy.summary import Lines, headline, mean_over
from benchmarks.development import DEVELOPMENT
from benchmarks.main_job_block import table
from benchmarks.peers import PEERS
from benchmarks.words import texts

OURS, SHOWN, ALWAYS = "kusabi", 3, ("linear_probe", "zero_shot")
PLAIN = tuple(name for name in PEERS if "+" not in name)


def accuracy_block(lines: Lines, titles: Mapping[str, str], language: str) -> str:
    """Means by number of labels, headline tasks and development tasks apart; the best peers are named with hindsight.

    Args:
        lines: Of every method of stage a.
        titles: Of the methods.
        language: ``en`` or ``ja``.
    """
    said, stage = texts(language), STAGES["a"]
    tasks, seeds = complete(lines, stage.tasks, stage.seeds, stage.shots)
    judged, chosen_on = headline(tasks), [task for task in tasks if task in DEVELOPMENT]
    if not judged or not chosen_on:
        return said["absent"]
    found = {
        name: [*_means(lines[name], judged, seeds), *_means(lines[name], chosen_on, seeds)] for name in (OURS, *PLAIN)
    }
    rows = []
    for name in shown(found, len(stage.shots)):
        means = found[name]
        title = f"**{titles[name]}**" if name == OURS else titles[name]
        rows.append([title, *(said["percent"].format(value=f"{100 * mean:.1f}") for mean in means)])
    groups = (said["headline"], said["development"])
    heads = [said["method"], *(said["at"].format(group=group, shots=n) for group in groups for n in stage.shots)]
    caption = said["accuracy_caption"].format(
        judged=", ".join(judged), chosen_on=", ".join(chosen_on), seeds=", ".join(map(str, seeds)),
        all_seeds=len(stage.seeds), all_tasks=len(stage.tasks), peers=len(PLAIN), steps=stage.steps,
    )  # fmt: skip
    return f"{table(heads, rows)}\n\n{caption}"


def shown(found: Mapping[str, Sequence[float]], shots: int) -> list[str]:
    """Ours and some of the rest: the best by the mean of the first ``shots`` columns, and the best of every column.

    Args:
        found: Method -> a mean for every column.
        shots: Columns of headline tasks.
    """
    peers = sorted((name for name in found if name != OURS), key=lambda name: -sum(found[name][:shots]))
    of_columns = {max(peers, key=lambda name: found[name][i]) for i in range(len(found[OURS]))}
    listed = [name for place, name in enumerate(peers) if place < SHOWN or name in {*of_columns, *ALWAYS}]
    return [OURS, *listed]


def complete(
    lines: Lines,
    tasks: Sequence[str],
    seeds: Sequence[int],
    shots: Sequence[int],
    names: Sequence[str] = (OURS, *PLAIN),
) -> tuple[list[str], list[int]]:
    """Tasks and seeds of which all named methods are measured at every number of labels.

    Means need the same seeds of all their tasks: of such tables the largest, of equal ones that of most tasks.
    """
    whole = {
        (task, seed)
        for task in tasks
        for seed in seeds
        if all((task, n, seed) in lines.get(name, {}) for name in names for n in shots)
    }
    tables = [
        ([task for task in tasks if all((task, seed) in whole for seed in some)], list(some))
        for count in range(1, len(seeds) + 1)
        for some in combinations(seeds, count)
    ]
    found = max(tables, key=lambda one: (len(one[0]) * len(one[1]), len(one[0])))
    return found if found[0] else ([], [])


def _means(of: Mapping, tasks: Sequence[str], seeds: Sequence[int]) -> list[float]:
    means = [mean_over(of, tasks, n, seeds) for n in STAGES["a"].shots]
    return [mean for mean in means if mean is not None]
