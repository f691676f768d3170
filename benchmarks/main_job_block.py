"""The results of the main job as Markdown; every number comes from the results file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.words import texts
from kusabi.evaluation.pool import WAYS
from kusabi.report.numbers import count, duration, percent, points_range, signed, small_percent, volume
from kusabi.report.verdict import outcome
from kusabi.report.words import Words, read_words


def main_job_block(results: Mapping[str, Any] | None, language: str) -> str:
    """A table, how it was measured, how to read it, and what it cost; one sentence where nothing was measured."""
    said, words = texts(language), read_words(language)
    if results is None:
        return said["absent"]
    ways = [words(f"way.{way}") for way in WAYS]
    head = [
        said["task"],
        said["shots"],
        *(way.lower() for way in ways),
        said["minus_zero_shot"],
        said["minus_best_peer"],
    ]
    rows = [_row(task, one, said, words) for task in results["tasks"] for one in task["results"]]
    seeds = words.amount("seeds", len(results["seeds"]))
    paragraphs = [
        table(head, rows), said["caption"].format(seeds=seeds), _reading(results, said), _cost(results, said, words),
    ]  # fmt: skip
    return "\n\n".join(paragraphs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _row(task: Mapping[str, Any], one: Mapping[str, Any], said: Mapping[str, str], words: Words) -> list[str]:
    about = said["about"].format(
        name=said[task["name"]],
        classes=len(task["classes"]),
        size=task["spec"]["backbone"]["input_size"],
        pictures=words.amount("pictures", one["n"]),
    )
    accuracies = [percent(words, one["ways"][way]["accuracy"]) for way in WAYS]
    best = percent(words, max(one["ways"][way]["accuracy"] for way in WAYS))
    marked = [f"**{text}**" if text == best else text for text in accuracies]
    gained, against = one["difference"], one["against_best_peer"]
    peer = said["peer"].format(
        points=signed(against["value"]),
        range=points_range(words, against["interval"]),
        peer=words(f"way.{one['best_peer']}").lower(),
    )
    ahead = f"{signed(gained['value'])} ({points_range(words, gained['interval'])})"
    return [about, str(one["shots"]), *marked, ahead, peer]


def _reading(results: Mapping[str, Any], said: Mapping[str, str]) -> str:
    rows = [one for task in results["tasks"] for one in task["results"]]
    gained = Counter(str(outcome(one["difference"])) for one in rows)
    peers = Counter(f"peer_{outcome(one['against_best_peer'])}" for one in rows)
    marks = ("better", "unclear", "worse")
    counts = {mark: gained[mark] for mark in marks} | {f"peer_{mark}": peers[f"peer_{mark}"] for mark in marks}
    return said["reading"].format(rows=len(rows), **counts)


def _cost(results: Mapping[str, Any], said: Mapping[str, str], words: Words) -> str:
    rows = [one for task in results["tasks"] for one in task["results"]]
    runs = [run for one in rows for run in one["runs"]]
    parameters = results["tasks"][0]["backbone"]["parameters"]
    entries = [run["entries"] for run in runs]

    def span(values: Sequence[float], write: Any) -> str:
        low, high = write(words, min(values)), write(words, max(values))
        return low if low == high else said["span"].format(low=low, high=high)

    return said["cost"].format(
        entries=span(entries, count),
        parameters=count(words, parameters),
        share=span([one / parameters for one in entries], small_percent),
        bytes=span([run["bytes"] for run in runs], volume),
        training=span([run["training_seconds"] for run in runs], duration),
        total=span([run["total_seconds"] for run in runs], duration),
        **{key: results["environment"][key] for key in ("kusabi", "torch", "processor", "cores")},
    )
