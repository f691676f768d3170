"""Ours and the four best peers on all tasks, as Markdown, from the lines of the accuracy benchmark: what is whole."""

from collections.abc import Mapping

from benchmarks.accuracy.stages import STAGES
from benchmarks.accuracy.summary import Lines, best_peer, difference, headline, leading_peers, mean_over
from benchmarks.accuracy_block import OURS, PLAIN, complete
from benchmarks.development import DEVELOPMENT
from benchmarks.main_job_block import table
from benchmarks.words import texts
from kusabi.report.numbers import points_range, signed
from kusabi.report.words import read_words

PEERS = 4


def more_tasks_block(lines: Lines, titles: Mapping[str, str], language: str) -> str:
    """Means over all headline tasks by number of labels, and ours against the best of the peers in every column.

    Args:
        lines: Of every method of stage b; of every peer's of stage a, which tell who the best are.
        titles: Of the methods.
        language: ``en`` or ``ja``.
    """
    said, words, first, stage = texts(language), read_words(language), STAGES["a"], STAGES["b"]
    developed = [task for task in first.tasks if task in DEVELOPMENT]
    plain = {name: lines.get(name, {}) for name in PLAIN}
    peers, lacking = leading_peers(plain, developed, first.shots, first.seeds, PEERS)
    names = (OURS, *peers, "zero_shot")
    counts = (stage.shots, first.shots)
    found = [(*complete(lines, stage.tasks, stage.seeds, shots, names), shots) for shots in counts]
    tasks, seeds, shots = max(found, key=lambda one: len(one[0]) * len(one[1]) * len(one[2]))
    judged = headline(tasks)
    if lacking or len(judged) <= len(headline(first.tasks)):
        return said["absent"]
    of = {name: lines[name] for name in names}
    means = {name: [mean_over(of[name], judged, n, seeds) or 0.0 for n in shots] for name in names}
    rows = [
        [f"**{titles[name]}**" if name == OURS else titles[name],
         *(said["percent"].format(value=f"{100 * mean:.1f}") for mean in means[name])]
        for name in sorted(names, key=lambda name: (name != OURS, -sum(means[name])))
    ]  # fmt: skip
    against = [said["more_tasks_difference"]]
    for n in shots:
        peer = best_peer(of, judged, n, seeds)
        gap = difference(of[OURS], of[peer], judged, n, seeds) if peer else None
        assert peer and gap, "the cells of the table are there"
        between = points_range(words, [gap.low / 100, gap.high / 100])
        against.append(said["peer"].format(points=signed(gap.value / 100), range=between, peer=titles[peer]))
    heads = [said["method"], *(said["at"].format(group=said["headline"], shots=n) for n in shots)]
    caption = said["more_tasks_caption"].format(
        judged=", ".join(judged), count=len(judged), seeds=", ".join(map(str, seeds)), all_seeds=len(stage.seeds),
        shots=", ".join(map(str, stage.shots)), peers=PEERS,
    )  # fmt: skip
    return f"{table(heads, [*rows, against])}\n\n{caption}"
