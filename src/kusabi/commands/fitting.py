"""Verbs on a folder of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import print_json, progress, tables, typed
from kusabi.options import Device, Folder, Json, Quiet, Threads, with_spec
from kusabi.spec import AdaptSpec


@with_spec
def adapt(
    folder: Folder,
    spec: AdaptSpec,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a sparse adapter to labelled pictures and evaluate it beside zero-shot and the peers."""
    from kusabi.recipes.adapt import adapt as run

    with progress(quiet or as_json) as watch:
        evaluation = run(folder, spec, out, resume=resume, device=device, threads=threads, command=typed(), watch=watch)
    if as_json:
        print_json(evaluation)
    else:
        tables().results(evaluation, str(out))


@with_spec
def baseline(
    folder: Folder, spec: AdaptSpec, device: Device = "cpu", threads: Threads = None, quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What the model can do before any adapter, and what to do next."""
    from kusabi.recipes.baseline import baseline as run

    with progress(quiet or as_json) as watch:
        found = run(folder, spec, device=device, threads=threads, watch=watch)
    if as_json:
        print_json(found)
    else:
        tables().baseline(found)


@with_spec
def plan(folder: Folder, spec: AdaptSpec, device: Device = "cpu", as_json: Json = False) -> None:
    """Every tensor that an adapter would change, counts and bytes, before anything changes."""
    from kusabi.recipes.planned import planned

    found = planned(folder, spec, device=device)
    if as_json:
        print_json(found)
    else:
        tables().plan(found)
