"""A spec as plain data and as a TOML file: read with every complaint at once, written so that it reads back."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kusabi.errors import SpecError, listed
from kusabi.spec import PARTS, AdaptSpec


def build(fields: Mapping[str, Any], source: str = "spec") -> AdaptSpec:
    """A spec from nested plain data.

    Raises:
        SpecError: Listing every unknown key and every value out of bounds with its path.
    """
    try:
        return AdaptSpec.model_validate(fields)
    except ValidationError as error:
        lines = [_complaint(dict(problem)) for problem in error.errors()]
        raise SpecError(f"{source}: {listed(lines, '; ')}") from None


def read_spec(path: Path, flags: Mapping[str, Any] | None = None) -> AdaptSpec:
    """The spec in a TOML file, with flags (nested like the file) laid over it."""
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML spec file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from None
    return build(overlay(fields, flags or {}), str(path))


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


def _complaint(problem: dict[str, Any]) -> str:
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{path}'{_known(problem['loc'])}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"'{path}': {problem['msg']} (got {problem['input']!r})"


def _known(loc: tuple[Any, ...]) -> str:
    part: type[BaseModel] = PARTS.get(str(loc[0]), AdaptSpec) if len(loc) > 1 else AdaptSpec
    return f" (known here: {', '.join(part.model_fields)})"
