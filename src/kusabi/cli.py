"""The command line: parse, call one function, print, exit code. Heavy imports happen inside the verb.

Exit codes: 0 done; 2 something the user can put right, told in plain text on standard error; 130 interrupted.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kusabi.errors import KusabiError
from kusabi.options import Device, Folder, Json, OtherBackbone, Quiet, RunPath, Threads, with_spec
from kusabi.spec import AdaptSpec

# Typer carries its own copy of click and exports one leaf of its errors; this is the root of them.
CommandLineError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="kusabi",
    help="Fit a frozen vision-language model to your own pictures with a sparse adapter.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point."""
    try:
        code = app(standalone_mode=False)
    except KusabiError as error:
        code = _refuse(str(error))
    except CommandLineError as error:
        code = _refuse(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted; 'kusabi adapt' goes on where it was with --resume", file=sys.stderr)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> int:
    print(f"kusabi: {message}", file=sys.stderr)
    return 2


def _typed() -> str:
    return shlex.join(["kusabi", *sys.argv[1:]])


def _print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


@app.command(name="adapt")
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

    with _progress(quiet or as_json) as watch:
        evaluation = run(
            folder, spec, out, resume=resume, device=device, threads=threads, command=_typed(), watch=watch
        )
    if as_json:
        _print_json(evaluation)
    else:
        _tables().results(evaluation, str(out))


@app.command(name="baseline")
@with_spec
def baseline(
    folder: Folder, spec: AdaptSpec, device: Device = "cpu", threads: Threads = None, quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What the model can do before any adapter, and what to do next."""
    from kusabi.recipes.baseline import baseline as run

    with _progress(quiet or as_json) as watch:
        found = run(folder, spec, device=device, threads=threads, watch=watch)
    if as_json:
        _print_json(found)
    else:
        _tables().baseline(found)


@app.command(name="plan")
@with_spec
def plan(folder: Folder, spec: AdaptSpec, device: Device = "cpu", as_json: Json = False) -> None:
    """Every tensor that an adapter would change, counts and bytes, before anything changes."""
    from kusabi.recipes.planned import planned

    found = planned(folder, spec, device=device)
    if as_json:
        _print_json(found)
    else:
        _tables().plan(found)


@app.command(name="evaluate")
def evaluate(
    run: RunPath,
    folder: Folder,
    backbone: OtherBackbone = None,
    label_column: Annotated[str, typer.Option(help="Column of the metadata file that holds the class.")] = "label",
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable pictures out.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge a stored adapter on other labelled pictures."""
    from kusabi.recipes.stored_adapter import evaluate_stored

    with _progress(quiet or as_json) as watch:
        found = evaluate_stored(
            run, folder, backbone=backbone, device=device, threads=threads, label_column=label_column,
            skip_unreadable=skip_unreadable, watch=watch,
        )  # fmt: skip
    if as_json:
        _print_json(found)
    else:
        _tables().results(found, None)


@app.command(name="predict")
def predict(
    run: RunPath,
    images: Annotated[list[Path], typer.Argument(help="Pictures to answer.")],
    backbone: OtherBackbone = None,
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """The class of pictures, with probabilities."""
    from kusabi.recipes.stored_adapter import predict as answer

    with _progress(quiet or as_json) as watch:
        found = answer(run, images, backbone=backbone, device=device, threads=threads, watch=watch)
    if as_json:
        _print_json(found)
    else:
        _tables().predictions(found)


@app.command(name="export")
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


@app.command(name="report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders; runs that differ in seed are pooled.")],
    out: Annotated[Path | None, typer.Option(help="Page to write; report.html in the run when absent.")] = None,
    language: Annotated[str, typer.Option(help="en or ja.")] = "en",
) -> None:
    """One self-contained page for people who decide."""
    from kusabi.report.written import write_report

    print(write_report(runs, out, language))


@app.command(name="demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """The main job on real inspection pictures: three seeds and a page."""
    from kusabi.evaluation.pool import pool
    from kusabi.evaluation.stored import read_evaluation
    from kusabi.recipes.demo import demo as run
    from kusabi.report.written import write_report

    with _progress(quiet) as watch:
        runs = run(out, device=device, threads=threads, command=_typed(), watch=watch)
    _tables().results(pool([read_evaluation(one) for one in runs]), None)
    for language in ("ja", "en"):
        print(f"page: {write_report(runs, None, language)}")


@app.command(name="version")
def show_version() -> None:
    """The version of this program."""
    from importlib.metadata import version

    print(version("kusabi"))


def _tables() -> Any:
    from kusabi.recipes import tables

    return tables


def _progress(quiet: bool) -> Any:
    from kusabi.recipes.progress import progress

    return progress(quiet)


if __name__ == "__main__":
    main()
