"""Where a model lies: the embedded folder, a folder on disk, or a Hub id that becomes a folder."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from kusabi.backbones.families import Family, family_of
from kusabi.errors import BackboneError, told

MINI = Path(__file__).parent / "mini"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_WANTED = ["*.json", "*.txt", "*.model", "README.md", "model.safetensors", "model-*-of-*.safetensors"]
_WANTED += ["LICENSE*", "LICENCE*", "COPYING*"]
_NOT_WANTED = ["*/*"]  # copies for other frameworks


@dataclass(frozen=True)
class ModelFolder:
    """A folder of a supported model. ``source`` is what a card may say of it: never an absolute path."""

    path: Path
    source: str
    revision: str | None
    family: Family


def locate(source: str | Path, revision: str | None = None) -> ModelFolder:
    """Find a model and read what kind it is; nothing else is read, and no weight is downloaded before.

    ``'mini'`` is the embedded model (a folder of that name is ``./mini``). An existing folder wins over a Hub id.

    Raises:
        BackboneError: If there is no such model, it cannot be reached, or its kind is not supported.
    """
    path = MINI if source == "mini" else _expanded(source)
    if _is(Path.is_dir, path):
        if revision is not None:
            raise BackboneError(
                f"{source}: a revision ({revision}) belongs to a Hub id, but this is a folder; leave it"
            )
        return ModelFolder(path, path.resolve().name, None, family_of(read_config(path), str(source)))
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _from_hub(source, revision)
    raise BackboneError(f"{source}: no such model folder; give a folder with config.json, a Hub id owner/name, or mini")


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder.

    Raises:
        BackboneError: If it is missing or damaged.
    """
    if not _is(Path.is_file, folder / "config.json"):
        raise BackboneError(f"{folder}: no config.json in this folder; give the folder of a Hugging Face model")
    return read_json(folder / "config.json")


def _expanded(source: str | Path) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:
        raise BackboneError(f"{source}: there is no such user's home; give the whole path") from None


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    try:
        return question(path)
    except OSError as error:  # a folder above that may not be entered, a name that is too long
        raise BackboneError(told(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        BackboneError: If it cannot be read or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BackboneError(f"{path}: not valid JSON ({error}); restore the file") from None
    if not isinstance(content, dict):
        raise BackboneError(f"{path}: a JSON object was expected; restore the file")
    return content


def _from_hub(source: str, revision: str | None) -> ModelFolder:
    config = Path(_fetch(source, revision, lambda: hf_hub_download(source, "config.json", revision=revision)))
    commit = config.parent.name
    family = family_of(read_config(config.parent), source)
    folder = _fetch(
        source,
        revision,
        lambda: snapshot_download(source, revision=commit, allow_patterns=_WANTED, ignore_patterns=_NOT_WANTED),
    )
    return ModelFolder(Path(folder), source, commit, family)


def _fetch(source: str, revision: str | None, call: Callable[[], str]) -> str:
    try:
        return call()
    except Exception as error:  # whatever goes wrong here is the network, the Hub, or the cache on disk
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(f"{source}: {_reason(error, revision)} ({first})") from error


def _reason(error: Exception, revision: str | None) -> str:
    match error:
        case GatedRepoError():
            return "this model is gated; accept its terms on the Hub and run 'hf auth login'"
        case RepositoryNotFoundError():
            return (
                "neither a folder here nor a model on the Hub (or a private one: run 'hf auth login'); check the name"
            )
        case RevisionNotFoundError():
            return f"the Hub has no revision {revision!r} of this model; check it on the page of the model"
        case EntryNotFoundError() if not isinstance(error, LocalEntryNotFoundError):
            return "this Hub repository has no config.json; choose a repository of a transformers model"
        case _:
            return (
                "no such folder here, and the Hub cannot be reached; check the name, connect to the network once, "
                "or give a folder with the model"
            )
