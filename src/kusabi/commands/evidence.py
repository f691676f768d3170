"""Verbs that measure how far labels go."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import print_json, progress, tables, typed
from kusabi.options import Device, Folder, Json, Quiet, Threads, with_spec
from kusabi.spec import AdaptSpec


@with_spec
def curve(
    folder: Folder,
    spec: AdaptSpec,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/curve"),
    shots_list: Annotated[str, typer.Option(help="Numbers of labelled pictures per class.")] = "1,2,4,8,16",
    draws: Annotated[int, typer.Option(min=2, help="Draws of the pictures learned from, at each number.")] = 5,
    more: Annotated[int, typer.Option(min=1, help="Further labels per class whose gain is asked for.")] = 50,
    worth: Annotated[float, typer.Option(help="Points of accuracy that doubling the labels is worth.")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the curve in --out, if there is one.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """What more labels would buy: a learning curve, its law, and when to stop. --shots has no effect here."""
    from kusabi.recipes.curve import curve as run
    from kusabi.recipes.curve_folder import CurveAsked
    from kusabi.report.curve_answers import answers
    from kusabi.report.words import read_words

    asked = CurveAsked(_numbers(shots_list), draws, more, worth / 100)
    with progress(quiet or as_json) as watch:
        found = run(
            folder, spec, out, asked, resume=resume, device=device, threads=threads, command=typed(), watch=watch
        )
    if as_json:
        print_json(found)
    else:
        tables().curve(found, answers(found, read_words("en")), str(out))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--shots-list {text}: write whole numbers as 1,2,4,8") from None
