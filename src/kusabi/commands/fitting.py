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
    profile: Annotated[bool, typer.Option("--profile", help="Keep where time and memory went, for the page.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a sparse adapter to labelled pictures and evaluate it beside zero-shot and the peers."""
    from kusabi.recipes.adapt import adapt as run

    with progress(quiet or as_json) as watch:
        evaluation = run(
            folder, spec, out, resume=resume, device=device, threads=threads, command=typed(), watch=watch,
            profile=profile, since_start=profile,
        )  # fmt: skip
    if as_json:
        print_json(evaluation)
    else:
        tables().results(evaluation, str(out))


@with_spec
def baseline(
    folder: Folder,
    spec: AdaptSpec,
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Model folder, Hub id, or 'mini'; several are compared with a quick adapter each."),
    ] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="Compare without quick adapters.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write the comparison to, for 'kusabi report'.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out, if any.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """What the model can do before any adapter, and what to do next; of several models, which one to take."""
    if resume and out is None:
        raise typer.BadParameter("--resume goes on with the comparison in --out; name it")
    if out is not None or len(backbone or ()) > 1:
        _choice(folder, spec, backbone, no_adapter, out, resume, device, threads, quiet, as_json)
        return
    from kusabi.recipes.baseline import baseline as run

    if backbone:
        spec = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"backbone": backbone[0]})})
    with progress(quiet or as_json) as watch:
        found = run(folder, spec, device=device, threads=threads, watch=watch)
    if as_json:
        print_json(found)
    else:
        tables().baseline(found)


def _choice(
    folder: str, spec: AdaptSpec, backbones: list[str] | None, no_adapter: bool, out: Path | None, resume: bool,
    device: str, threads: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    from kusabi.recipes.candidates import compare_candidates
    from kusabi.recipes.candidates_folder import CandidatesAsked
    from kusabi.report.candidates_answers import answers
    from kusabi.report.words import read_words

    asked = CandidatesAsked(tuple(backbones or (spec.backbone.backbone,)), not no_adapter)
    with progress(quiet or as_json) as watch:
        found = compare_candidates(
            folder, spec, asked, out, resume=resume, device=device, threads=threads, command=typed(), watch=watch
        )
    if as_json:
        print_json(found)
    else:
        tables().comparison(found, answers(found, read_words("en")), out)


@with_spec
def plan(folder: Folder, spec: AdaptSpec, device: Device = "cpu", as_json: Json = False) -> None:
    """Every tensor that an adapter would change, counts and bytes, before anything changes."""
    from kusabi.recipes.planned import planned

    found = planned(folder, spec, device=device)
    if as_json:
        print_json(found)
    else:
        tables().plan(found)
