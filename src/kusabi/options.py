"""What can be asked on the command line: options that verbs share, and one for every field of the spec."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from kusabi.spec import PARTS, AdaptSpec
from kusabi.spec_file import FLAGS, build, overlay, placement_fields, read_spec

Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's own choice when absent.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Folder = Annotated[str, typer.Argument(help="Pictures in class folders, a saved dataset, or a Hub id.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, or an adapter folder.")]
OtherBackbone = Annotated[str | None, typer.Option(help="Model folder or Hub id, where it moved since the training.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the metadata file that holds the class.")]
GroupsJudging = Annotated[
    str | None, typer.Option("--group-column", help="Column (lot, patient, camera) whose groups intervals count.")
]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable pictures out.")]
Preset = Annotated[str | None, typer.Option(help="Published method whose choices are taken; flags win.")]
SpecFile = Annotated[Path | None, typer.Option(help="TOML file with the same fields; flags win.")]


def with_spec(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb one option per field of the spec; it receives the finished ``spec``.

    A field that the verb has a parameter for is the verb's own affair and not in the spec.
    """
    own = [p for p in inspect.signature(verb).parameters.values() if p.name != "spec"]
    options = [_option("seed", AdaptSpec.model_fields["seed"], "spec")]
    options += [_option(key, field, part) for part, model in PARTS.items() for key, field in model.model_fields.items()]
    options = [option for option in options if option.name not in {p.name for p in own}]

    def run(spec_file: Path | None = None, preset: str | None = None, **arguments: Any) -> None:
        flags = _preset(preset) if preset is not None else {}
        for option in options:
            value = arguments.pop(option.name)
            if value not in (None, []):
                part, key = _place(option.name)
                flags = overlay(flags, {part: {key: _pairs(key, value)}} if part else {key: value})
        if (where := flags.get("adapter", {}).get("placement")) is not None:
            told = placement_fields(where)
            flags["adapter"] = {**told, **flags["adapter"], "placement": told["placement"]}
        spec = read_spec(spec_file, flags) if spec_file else build(flags, FLAGS)
        verb(spec=spec, **arguments)

    file_option = inspect.Parameter("spec_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SpecFile)
    preset_option = inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Preset)
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    required = [p for p in keywords if p.default is inspect.Parameter.empty]
    optional = [p for p in keywords if p.default is not inspect.Parameter.empty]
    run.__signature__ = inspect.Signature([*required, *optional, file_option, preset_option, *options])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    return run


def _preset(name: str) -> dict[str, Any]:
    from kusabi.adapters.presets import spec_fields

    return spec_fields(name)


def _place(key: str) -> tuple[str | None, str]:
    return next(((part, key) for part, model in PARTS.items() if key in model.model_fields), (None, key))


def _option(key: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    kind, default = field.annotation, field.get_default(call_default_factory=True)
    shown = (
        ""
        if default in (None, {}, ())
        else f" Default: {', '.join(default) if isinstance(default, tuple) else default}."
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
    elif any(get_origin(choice) is Annotated for choice in get_args(kind)):
        pass  # a number or a word: the spec tells which
    elif kind is not str and str not in get_args(kind):
        text += f" One of: {', '.join(map(str, get_args(kind)))}."
    name = key.replace("_", "-")
    names = f"--{name}/--no-{name}" if plain is bool else f"--{name}"
    option = typer.Option(None, names, help=text, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=plain | None)


def _pairs(key: str, value: Any) -> Any:
    if key != "names":
        return tuple(value) if isinstance(value, list) else value
    wrong = [pair for pair in value if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"--names {wrong[0]}: write CLASS=WORDS")
    return dict(pair.split("=", 1) for pair in value)
