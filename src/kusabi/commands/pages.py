"""Verbs that end in a page."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import progress, tables, typed
from kusabi.options import Device, Quiet, Threads


def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders; runs that differ in seed are pooled.")],
    out: Annotated[Path | None, typer.Option(help="Page to write; report.html in the run when absent.")] = None,
    language: Annotated[str, typer.Option(help="en or ja.")] = "en",
) -> None:
    """One self-contained page for people who decide."""
    from kusabi.report.written import write_report

    print(write_report(runs, out, language))


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """The main job on simulated fabric inspection: three seeds and a page."""
    from kusabi.evaluation.pool import pool
    from kusabi.evaluation.stored import read_evaluation
    from kusabi.recipes.demo import demo as run
    from kusabi.report.written import write_report

    with progress(quiet) as watch:
        runs = run(out, device=device, threads=threads, command=typed(), watch=watch)
    tables().results(pool([read_evaluation(one) for one in runs]), None)
    for language in ("ja", "en"):
        print(f"page: {write_report(runs, None, language)}")
