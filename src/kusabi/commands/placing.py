"""The verb on where an adapter should sit."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import print_json, progress, tables, typed
from kusabi.options import Device, Folder, Json, Quiet, Threads, with_spec
from kusabi.spec import AdaptSpec

FAMILIES = "in,out,top,bottom,projections,towers"


@with_spec
def ablate(
    folder: Folder,
    spec: AdaptSpec,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    trials: Annotated[
        str,
        typer.Option(
            help="Some of in, out: one layer alone, all but one; top, bottom: more and more layers from there; "
            "projections: each kind of weight; towers: either and both."
        ),
    ] = FAMILIES,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of labelled pictures, from --seed upwards.")] = 3,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out, or add to it.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Try where the adapter sits (layers, towers, projections) at equal budget, and recommend a placement."""
    from kusabi.recipes.ablate import ablate as run

    families = tuple(name.strip() for name in trials.split(",") if name.strip())
    with progress(quiet or as_json) as watch:
        found = run(
            folder, spec, out, families=families, seeds=seeds, resume=resume, device=device, threads=threads,
            command=typed(), watch=watch,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        tables().ablation(found, str(out))
