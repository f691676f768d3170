"""Short tables for the terminal."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from kusabi.evaluation.choice_apart import worth_of

WORTH = 0.01
"""Share of the time below which a stage is not listed."""
WIDE = 240
NAMES = {"zero_shot": "zero-shot", "class_mean": "class mean", "linear_probe": "linear probe", "adapted": "adapter"}


def results(evaluation: Mapping[str, Any], out: str | None) -> None:
    """Accuracy of every way of answering, and what the adapter bought."""
    console = _console()
    console.print(_accuracies(evaluation))
    difference = evaluation["difference"]
    low, high = difference["interval"]
    console.print(
        f"adapter minus zero-shot: {100 * difference['value']:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, n = {difference['n']})"
    )
    if peer := evaluation.get("best_peer"):
        against = evaluation["against_peers"][peer]
        low, high = against["interval"]
        word = "ahead of" if low > 0 else "behind" if high < 0 else "level with"
        console.print(
            f"{word} the best peer ({NAMES[peer]}): {100 * against['value']:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f})"
        )
    _notes(evaluation["task"], console)
    if stages := evaluation.get("cost", {}).get("stages"):  # an adapter judged once more has no cost
        whole, peak = sum(one["seconds"] for one in stages), max(one["peak_memory_bytes"] for one in stages)
        long = sorted((one for one in stages if one["seconds"] >= WORTH * whole), key=lambda one: -one["seconds"])
        spent = ", ".join(f"{one['stage']} {one['seconds']:.1f} s" for one in long)
        console.print(f"{whole:.1f} s: {spent}; at most {peak / 1e6:,.0f} MB of memory")
    if out:
        of = evaluation["adapter"]
        where = f" in {of['placement']}" if "placement" in of else ""
        console.print(f"adapter: {out}/adapter ({of['entries']:,} entries{where}, {of['bytes'] / 1000:.0f} kB)")
        console.print(f"page: kusabi report {shlex.quote(str(out))}")


def baseline(found: Mapping[str, Any]) -> None:
    """The model before any adapter, and the recommendation."""
    console = _console()
    console.print(_accuracies(found))
    advice = found["recommendation"]
    console.print(f"recommendation: {advice['action']}: {advice['reason']}")
    _notes(found["task"], console)


def _notes(task: Mapping[str, Any], console: Console) -> None:
    for note in task.get("notes", []):
        console.print(f"note: {note}")
    if "intervals_by" in task and task["query_groups"] < task["query_pictures"]:
        console.print(f"note: intervals count {task['query_groups']} groups, not the pictures in them")


def comparison(found: Mapping[str, Any], answers: Sequence[str], out: Any) -> None:
    """Every candidate with its accuracies and its cost, and which one to take."""
    ways = [way for way in NAMES if way != "adapted" or found["asked"]["adapter"]]
    accuracies = Table("model", *(NAMES[way] for way in ways), "95 % interval", box=None)
    costs = Table("model", "licence", "parameters", "weights", "pictures/s", "to load", "to adapt", box=None)
    for row in found["candidates"]:
        if row["error"] is not None:
            accuracies.add_row(row["name"], "not measured")
            continue
        low, high = row[found["judged_by"]]["interval"]
        shown = [f"{row[way]['accuracy']:.1%}" for way in ways]
        accuracies.add_row(row["name"], *shown, f"{low:.1%} to {high:.1%}")
        seconds = ["–" if one is None else f"{one:.1f} s" for one in (row["seconds"]["load"], row["seconds"]["adapt"])]
        costs.add_row(
            row["name"], row["licence"]["name"] or "unknown", f"{row['backbone']['parameters']:,}",
            f"{row['weight_bytes'] / 1e6:.1f} MB", f"{row['speed']['pictures_per_second']:.1f}", *seconds,
        )  # fmt: skip
    console = _console()
    console.print(accuracies)
    console.print(costs)
    for sentence in answers:
        console.print(sentence)
    for note in found["task"]["notes"]:
        console.print(f"note: {note}")
    if out is not None:
        console.print(f"page: kusabi report {shlex.quote(str(out))}")


def plan(found: Mapping[str, Any]) -> None:
    """Every tensor that would change."""
    table = Table(Column("tensor", overflow="fold"), "tower", "layer", "size", "entries", box=None)
    for target in found["targets"]:
        size, entries = f"{target['size']:,}", f"{target['entries']:,}"
        table.add_row(target["tensor"], target["tower"], str(target["layer"]), size, entries)
    console = _console()
    console.print(table)
    console.print(
        f"{found['entries']:,} of {found['targeted']:,} targeted weights ({found['density']:.2%}), "
        f"{found['share_of_backbone']:.3%} of the model, about {found['bytes'] / 1000:.0f} kB; "
        f"classifier {found['head_entries']:,} entries beside it"
    )
    for note in found["notes"]:
        console.print(f"note: {note}")


def curve(found: Mapping[str, Any], answers: Any, out: str) -> None:
    """Accuracy by labels per class, the spread of the draws, and what follows."""
    shots = [str(number) for number in found["asked"]["shots"]]
    table = Table("labels per class", *shots, box=None)
    for method, of in found["methods"].items():
        table.add_row(NAMES[method], *(f"{point['accuracy']:.1%}" for point in of["points"]))
    ours = found["methods"]["adapted"]["points"]
    table.add_row("adapter, 95 % interval", *("{:.1%} to {:.1%}".format(*point["interval"]) for point in ours))
    table.add_row("adapter, spread of draws", *(f"{100 * point['spread']:.1f} points" for point in ours))
    console = _console()
    console.print(table)
    zero = found["zero_shot"]
    console.print("zero-shot: {:.1%} ({:.1%} to {:.1%})".format(zero["accuracy"], *zero["interval"]))
    for sentence in (answers.stop, *answers.others):
        console.print(sentence)
    for note in found["task"]["notes"]:
        console.print(f"note: {note}")
    console.print(f"page: kusabi report {shlex.quote(str(out))}")


def predictions(found: Sequence[Mapping[str, Any]]) -> None:
    """One line a picture."""
    console = _console()
    for answer in found:
        best = sorted(answer["scores"].items(), key=lambda item: -item[1])[:3]
        console.print(f"{answer['file']}: " + ", ".join(f"{name} {p:.1%}" for name, p in best))


def interference(found: Mapping[str, Any]) -> None:
    """What adapters would do to each other, before they are composed."""
    table = Table("adapter", "", "weight", "kind", "entries", "classes", box=None)
    for one in found["sources"]:
        entries, classes = f"{one['entries']:,}", str(one["classes"])
        table.add_row(one["run"], one["label"], f"{one['weight']:g}", one["kind"], entries, classes)
    console = _console()
    console.print(table)
    if found["table"]:
        console.print(found["table"])


def composed(found: Mapping[str, Any]) -> None:
    """What came out of a composition, and what it cost where that was measured."""
    console = _console()
    for one in found.get("measured", ()):
        low, high = one["difference"]["interval"]
        among = one.get("composed_among_own")
        own = f" ({among['accuracy']:.1%} among its own classes)" if among else ""
        units = f", in {one['query_groups']} groups" if "query_groups" in one else ""
        console.print(
            f"{one['adapter']} on {one['data']}: alone {one['alone']['accuracy']:.1%}, composed "
            f"{one['composed']['accuracy']:.1%}{own}: {100 * one['difference']['value']:+.1f} points "
            f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, n = {one['difference']['n']}{units})"
        )
        for note in one.get("notes", ()):
            console.print(f"note: {one['data']}: {note}")
        if one["learned_from"]:
            console.print(f"note: the adapter has learned from pictures of {one['data']}; others would say more")
    made = found["composed"]
    about = f"{made['how']}, {made['kind']}, {made['entries']:,} entries, {len(made['classes'])} classes"
    console.print(f"adapter: {made['out']} ({about})" if "out" in made else f"nothing written ({about})")


def ablation(found: Mapping[str, Any], out: str) -> None:
    """Every placement beside the default, and the recommendation."""
    which = Column("", overflow="fold")  # names of weights begin alike: whole, or they are one and the same
    numbers = ("accuracy", "minus default", "95 % interval", "held-out loss", "seconds")
    table = Table("trial", "tower", which, *numbers, box=None)
    rows = [("default", "", "", found["placements"][found["default"]]), ("auto", "", "", found["auto"])]
    rows += [(t["family"], t["tower"], t["label"], found["placements"][t["placement"]]) for t in found["trials"]]
    for family, tower, label, one in rows:
        low, high = one["difference"]["interval"]
        loss = "–" if one["support_loss"] is None else f"{one['support_loss']:.3f}"
        shown = (
            f"{one['accuracy']:.1%}",
            f"{100 * one['difference']['value']:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
        )
        table.add_row(family, tower, label.removesuffix(".weight"), *shown, loss, f"{one['seconds']:.1f}")
    console = _console()
    console.print(table)
    for name, one in found["predictor"]["correlation"].items():
        if one["accuracy"] is not None:
            console.print(f"gradient energy against one layer alone, {name}: rank correlation {one['accuracy']:+.2f}")
    if found["left_out"]:
        console.print(f"note: {len(found['left_out'])} placements have fewer weights than {found['budget']:,} entries")
    if without := found["predictor"].get("seeds_without_text"):
        seeds = len(found["task"]["seeds"])
        console.print(
            f"note: in {without} of {seeds} draws the classifier was of class means alone (blend 1) and no class name "
            "counted: nothing pulls at the text tower there, which says nothing of its worth with --blend below 1"
        )
    for note in found["task"].get("notes", []):
        console.print(f"note: {note}")
    advice = found["recommendation"]
    console.print(f"recommendation: {advice['action']}: {advice['placement']}; {_worth(found)}")
    console.print(f"next: kusabi adapt … --placement {out}/placement.toml")


def _worth(found: Mapping[str, Any]) -> str:
    """What following the recommendation brings, and on what that was measured."""
    advice = found["recommendation"]
    low, high = advice["difference"]["interval"]
    gain = (
        f"{100 * advice['difference']['value']:+.1f} points against the default ({100 * low:+.1f} to {100 * high:+.1f})"
    )
    match worth_of(found):
        case "unseen":
            return f"on query pictures {gain}"
        case "same":
            return f"{gain} on the very pictures that chose it: too good to expect again"
        case "anew":
            same, n = advice["chosen_anew"].get(advice["placement"], 0), sum(advice["chosen_anew"].values())
            return (
                f"{gain} when chosen anew for each part of the pictures by the losses on the others (there is no test "
                f"split); {same} of {n} answers are from this placement"
            )


def _accuracies(evaluation: Mapping[str, Any]) -> Table:
    table = Table("", "accuracy", "95 % interval", "balanced", "n", box=None)
    for way, name in NAMES.items():
        if way in evaluation:
            one = evaluation[way]
            low, high = one["interval"]
            balanced = "–" if one["balanced_accuracy"] is None else f"{one['balanced_accuracy']:.1%}"
            table.add_row(name, f"{one['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", balanced, str(one["n"]))
    return table


def _console() -> Console:
    whole = None if sys.stdout and sys.stdout.isatty() else WIDE  # a file or a pipe has no width to fit
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=whole)
