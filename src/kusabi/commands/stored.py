"""Verbs on a stored adapter."""

from pathlib import Path
from typing import Annotated

import typer

from kusabi.commands.shown import print_json, progress, tables
from kusabi.options import (
    Device,
    Folder,
    GroupsJudging,
    Json,
    LabelColumn,
    OtherBackbone,
    Quiet,
    RunPath,
    SkipUnreadable,
    Threads,
)


def evaluate(
    run: RunPath,
    folder: Folder,
    backbone: OtherBackbone = None,
    label_column: LabelColumn = "label",
    group_column: GroupsJudging = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge a stored adapter on other labelled pictures."""
    from kusabi.recipes.stored_adapter import evaluate_stored

    with progress(quiet or as_json) as watch:
        found = evaluate_stored(
            run, folder, backbone=backbone, device=device, threads=threads, label_column=label_column,
            group_column=group_column, skip_unreadable=skip_unreadable, watch=watch,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        tables().results(found, None)


def predict(
    run: RunPath,
    images: Annotated[list[Path], typer.Argument(help="Pictures to answer.")],
    also: Annotated[
        list[str] | None, typer.Option(help="A further class without labelled pictures, told by its name; repeatable.")
    ] = None,
    backbone: OtherBackbone = None,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """The class of pictures, with probabilities."""
    from kusabi.recipes.stored_adapter import predict as answer

    with progress(quiet or as_json) as watch:
        found = answer(run, images, also=also or (), backbone=backbone, device=device, threads=threads, watch=watch)
    if as_json:
        print_json(found)
    else:
        tables().predictions(found)


def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="shira, lora: for PEFT's PeftModel; merged: a folder for from_pretrained; onnx: pixels to logits.",
        ),
    ] = "merged",
    backbone: OtherBackbone = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the weights: float32, bfloat16 or float16; as in training when absent. ONNX: float32."),
    ] = None,
) -> None:
    """The adapter for programs that don't know Kusabi; a few lines in the folder's README run its classifier."""
    from kusabi.recipes.export import export as write

    print(write(run, out, form, backbone=backbone, dtype=dtype))
