"""Verbs that make one adapter of several."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import print_json, progress, tables
from kusabi.options import Device, GroupsJudging, Json, LabelColumn, OtherBackbone, Quiet, SkipUnreadable, Threads


def compose(
    runs: Annotated[list[Path], typer.Argument(help="Run folders or adapter folders.")],
    out: Annotated[Path | None, typer.Option(help="Adapter folder to write; must be new or empty.")] = None,
    weights: Annotated[str | None, typer.Option(help="One for each adapter, as 1,0.5; 1 for all when absent.")] = None,
    how: Annotated[str, typer.Option(help="sum, ties, or disjoint (refuses supports that overlap).")] = "sum",
    density: Annotated[float, typer.Option(help="Share of each adapter's entries that ties keeps.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would come out and write nothing.")] = False,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Labelled pictures of each adapter's task, in order: repeat it. What composing costs there."),
    ] = None,
    backbone: OtherBackbone = None,
    label_column: LabelColumn = "label",
    group_column: GroupsJudging = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """One adapter out of several for the same model; first shows how they get into each other's way."""
    from kusabi.recipes.compose import compose as run

    with progress(quiet or as_json) as watch:
        found = run(
            runs, out, weights=_numbers(weights), how=how, density=density, dry_run=dry_run, measure=measure or (),
            backbone=backbone, device=device, threads=threads, label_column=label_column,
            group_column=group_column, skip_unreadable=skip_unreadable,
            show=None if as_json else tables().interference, watch=watch,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        tables().composed(found)


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--weights {text}: write one number for each adapter, such as 1,0.5") from None
