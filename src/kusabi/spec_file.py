"""A spec as plain data and as a TOML file: read with every complaint at once, written so that it reads back."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kusabi.errors import SpecError, listed, told
from kusabi.spec import AUTO, PARTS, AdaptSpec

PLACEMENT, FLAGS = "placement.toml", "flags"
_CHOICE = re.compile(r"(literal|constrained-|function-)|(float|int|str|bool)$")  # one of several types, to pydantic


def build(fields: Mapping[str, Any], source: str = "spec") -> AdaptSpec:
    """A spec from nested plain data.

    Raises:
        SpecError: Listing every unknown key and every value out of bounds with its path.
    """
    try:
        return AdaptSpec.model_validate(fields)
    except ValidationError as error:
        lines = _complaints([dict(problem) for problem in error.errors()], source)
        raise SpecError(f"{source}: {listed(lines, '; ')}") from None


def read_spec(path: Path, flags: Mapping[str, Any] | None = None) -> AdaptSpec:
    """The spec in a TOML file, with flags (nested like the file) laid over it."""
    return build(overlay(read_toml(path), flags or {}), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Plain data in a TOML file.

    Raises:
        SpecError: If it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number too long, nested too deeply
        raise SpecError(f"{path}: not valid TOML: {error}") from None


def placement_fields(text: str) -> dict[str, Any]:
    """The ``adapter`` fields that ``--placement FILE_OR_TEXT`` means.

    Args:
        text: A placement; or a TOML file whose ``[adapter]`` has one and perhaps a budget, as ``ablate`` writes it; or
            the folder of an ablation.

    Raises:
        SpecError: If a file cannot be read or says nothing of a placement.
    """
    if text == AUTO or (":" in text and not text.endswith(".toml")):
        return {"placement": text}
    path = Path(text)
    try:
        path = path / PLACEMENT if path.is_dir() else path
        there = path.exists()
    except OSError as error:  # a folder above that may not be entered, a name that is too long
        raise SpecError(told(error)) from None
    if not there:
        raise SpecError(
            f"--placement {text}: no such file; give pieces TOWER:LAYERS:PROJECTIONS such as 'vision:6-7:mlp.*', "
            f"'{AUTO}', a TOML file, or the folder of a finished 'kusabi ablate'"
        )
    adapter = read_toml(path).get("adapter", {})
    if not isinstance(adapter, dict) or "placement" not in adapter:
        raise SpecError(f"{path}: says no placement; write [adapter] and below it placement = 'vision:6-7:mlp.*'")
    return {key: adapter[key] for key in ("placement", "budget") if key in adapter}


def overlay(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with the tables of ``over`` merged in, one level deep."""
    merged = dict(fields)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def write_toml(spec: AdaptSpec) -> str:
    """TOML that ``read_spec`` reads back as the same spec: ``build(loads(write_toml(s))) == s``."""
    lines = [f"schema_version = {spec.schema_version}", f"seed = {spec.seed}"]
    for part in PARTS:
        lines += ["", f"[{part}]"]
        for key, value in getattr(spec, part).model_dump(mode="json").items():
            if value is not None:
                lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the delete character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _complaints(problems: Sequence[dict[str, Any]], source: str) -> list[str]:
    """One for each place: a field that takes several types has a problem with each of them."""
    wrong: dict[str, list[str]] = {}
    for problem in problems:
        place, _, what = (said := _complaint(problem, source)).partition(": ")
        several = any(_CHOICE.match(str(part)) for part in problem["loc"])
        wrong.setdefault(place if several else said, []).append(what if several else "")
    return [place if not all(whats) else f"{place}: {'; or: '.join(whats)}" for place, whats in wrong.items()]


def _complaint(problem: dict[str, Any], source: str) -> str:
    place = [str(part) for part in problem["loc"] if not _CHOICE.match(str(part))]
    path = f"--{place[1].replace('_', '-')}" if source == FLAGS and len(place) > 1 else ".".join(place)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{path}'{_known(problem['loc'])}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"'{path}': {problem['msg']} (got {problem['input']!r})"


def _known(loc: tuple[Any, ...]) -> str:
    part: type[BaseModel] = PARTS.get(str(loc[0]), AdaptSpec) if len(loc) > 1 else AdaptSpec
    return f" (known here: {', '.join(part.model_fields)})"
