"""The command line: parse, call one function, print, exit code. Heavy imports happen inside the verb.

Exit codes: 0 done; 2 something the user can put right, told in plain text on standard error; 130 interrupted.
"""

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from kusabi.errors import KusabiError
from kusabi.spec import PARTS, AdaptSpec, build, overlay, read_spec

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

Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's own choice when absent.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Folder = Annotated[str, typer.Argument(help="Pictures in class folders, a saved dataset, or a Hub id.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, or an adapter folder.")]
OtherBackbone = Annotated[str | None, typer.Option(help="Model folder or Hub id, where it moved since the training.")]
SpecFile = Annotated[Path | None, typer.Option(help="TOML file with the same fields; flags win.")]


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


def with_spec(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb one option per field of the spec; it receives the finished ``spec``."""
    own = [p for p in inspect.signature(verb).parameters.values() if p.name != "spec"]
    options = [_option("seed", AdaptSpec.model_fields["seed"], "spec")]
    options += [
        _option(key, field, part)
        for part, model in PARTS.items()
        for key, field in model.model_fields.items()
        if key != "kind"
    ]

    def run(spec_file: Path | None = None, **arguments: Any) -> None:
        flags: dict[str, Any] = {}
        for option in options:
            value = arguments.pop(option.name)
            if value not in (None, []):
                part, key = _place(option.name)
                flags = overlay(flags, {part: {key: _pairs(key, value)}} if part else {key: value})
        spec = read_spec(spec_file, flags) if spec_file else build(flags, "flags")
        verb(spec=spec, **arguments)

    file_option = inspect.Parameter("spec_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SpecFile)
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    required = [p for p in keywords if p.default is inspect.Parameter.empty]
    optional = [p for p in keywords if p.default is not inspect.Parameter.empty]
    run.__signature__ = inspect.Signature([*required, *optional, file_option, *options])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    return run


def _place(key: str) -> tuple[str | None, str]:
    return next(((part, key) for part, model in PARTS.items() if key in model.model_fields), (None, key))


def _option(key: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    kind, default = field.annotation, field.get_default(call_default_factory=True)
    shown = (
        "" if default in (None, {}) else f" Default: {', '.join(default) if isinstance(default, tuple) else default}."
    )
    text = f"{field.description}{shown}"
    plain: Any = str
    if get_origin(kind) in (tuple, Mapping) or key in ("templates", "names"):
        plain = list[str]
        text += " NAME=WORDS." if key == "names" else ""
    elif bool in (kind, *get_args(kind)):
        plain = bool
    elif int in (kind, *get_args(kind)):
        plain = int
    elif float in (kind, *get_args(kind)):
        plain = float
    elif kind is not str and str not in get_args(kind):
        text += f" One of: {', '.join(map(str, get_args(kind)))}."
    names = [f"--{key.replace('_', '-')}"]
    option = typer.Option(None, *names, help=text, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=plain | None)


def _pairs(key: str, value: Any) -> Any:
    if key != "names":
        return tuple(value) if isinstance(value, list) else value
    wrong = [pair for pair in value if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"--names {wrong[0]}: write CLASS=WORDS")
    return dict(pair.split("=", 1) for pair in value)


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
