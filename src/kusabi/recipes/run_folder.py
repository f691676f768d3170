"""A run on disk: what was asked, and what came out. Killed at any moment, it can be gone on with.

``spec.toml`` and ``environment.json`` say what runs, ``training_log.py`` where it stands; ``adapter/`` and, last,
``evaluation.json`` finish the run.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from kusabi.errors import RunError
from kusabi.evaluation.stored import EVALUATION, SPEC
from kusabi.files import check_place, make_folder, write_bytes
from kusabi.recipes.training_log import CHECKPOINT
from kusabi.spec import AdaptSpec
from kusabi.spec_file import read_spec, write_toml
from kusabi.training.fit import peak_rate

ENVIRONMENT, ADAPTER = "environment.json", "adapter"
LOCK = ".lock"  # held while a process works there; one that is killed holds it no more
_ASIDE = re.compile(r"\..+\.\d+")  # as kusabi.files names them


def check_run(folder: Path, spec: AdaptSpec, resume: bool, verb: str) -> bool:
    """Whether a run may go there; True when it is a finished one of ``adapt``. Nothing is written.

    Args:
        folder: The run.
        spec: What is asked.
        resume: Whether what is there may be gone on with.
        verb: Of the command line, that asks it.

    Raises:
        RunError: If something is in the way, or the run there was asked for something else, or by another verb.
        FileError: If nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: a file is in the way; choose another --out")
    check_place(folder)
    there = [path.name for path in folder.iterdir() if path.name != LOCK] if folder.exists() else []
    if not there:
        return False
    if not resume:
        raise RunError(f"{folder}: exists already; go on with it by --resume, or choose another --out")
    if (folder / SPEC).exists():
        by = began(folder).get("verb", verb)
        if by != verb:
            raise RunError(f"{folder}: of 'kusabi {by}', which goes on with it by --resume; choose another --out")
        _check_same(folder, spec)
        # An adapter that was deleted since is made again.
        return (folder / EVALUATION).exists() and (verb != "adapt" or (folder / ADAPTER).is_dir())
    if not all(map(_ASIDE.fullmatch, there)):
        raise RunError(f"{folder}: not a run (no {SPEC}); choose another --out")
    return False


def adapter_folder(run: Path) -> Path:
    """The adapter folder of a run, or the folder itself.

    Raises:
        RunError: If there is no such folder, or the run has no adapter yet.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such folder; give a run folder, or the adapter folder in it")
    folder = run / ADAPTER if (run / ADAPTER).is_dir() else run
    by = began(run).get("verb", "adapt")
    if folder is run and by != "adapt":
        raise RunError(f"{run}: made by 'kusabi {by}', which leaves no adapter; give a run of 'kusabi adapt'")
    if folder is run and (run / SPEC).exists():
        raise RunError(f"{run}: an unfinished run without adapter; go on with it by 'kusabi adapt --resume'")
    return folder


def began(folder: Path) -> dict[str, Any]:
    """What is known of the beginning of a run; nothing where there is none.

    Raises:
        RunError: If the file is damaged.
    """
    path = folder / ENVIRONMENT
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); choose another --out") from None


def check_given(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse to go on with a run, or to hand out its results, where the answer would be to something else.

    Args:
        folder: The run.
        given: What the answer depends on beside the spec: ``data_digest``; ``backbone_digest`` where it is known;
            ``beside`` where there are others.

    Raises:
        RunError: If the pictures, the model, or the adapters beside, are not those that the run began with.
    """
    first = began(folder) or given
    changed = {}
    for what, key in (("the pictures", "data_digest"), ("the weights of the model", "backbone_digest")):
        there, here = first.get(key), given.get(key)
        if there and here and there != here:
            changed[what] = ([there], [here])
    if first.get("beside", []) != given.get("beside", []):
        changed["the adapters beside"] = (first.get("beside", []), given.get("beside", []))
    if changed:
        digests = [f"{_short(there)} there, {_short(here)} here" for there, here in changed.values()]
        raise RunError(
            f"{folder}: {' and '.join(changed)} have changed since this run began (digest {'; '.join(digests)}); put "
            "back what it began with, or choose another --out"
        )


def _short(digests: Sequence[str]) -> str:
    return " + ".join(digest[:12] for digest in digests) or "none"


def check_asked(folder: Path, key: str, asked: Mapping[str, Any]) -> None:
    """Refuse to go on with what a verb was asked otherwise than by its spec.

    Args:
        folder: The run.
        key: Of what it was asked, in its environment.
        asked: Now.

    Raises:
        RunError: Naming every difference.
    """
    there = began(folder).get(key, asked)
    changed = [f"{name} is {there.get(name)!r} there, {here!r} here" for name, here in asked.items()
               if there.get(name) != here]  # fmt: skip
    if changed:
        raise RunError(f"{folder}: asked for something else ({'; '.join(changed)}); choose another --out")


def start_run(folder: Path, spec: AdaptSpec, verb: str, surroundings: Mapping[str, Any]) -> None:
    """Write what was asked, by which verb, on what machine and of which pictures; taken up, it must ask the same.

    Raises:
        RunError: As ``check_given`` does.
        FileError: If the disk refuses.
    """
    check_given(folder, surroundings)
    make_folder(folder)
    write_bytes(folder / SPEC, write_toml(spec).encode())
    write_json(folder / ENVIRONMENT, {"verb": verb, **surroundings})


@contextmanager
def running(folder: Path, spec: AdaptSpec, verb: str, surroundings: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Begin a run, or take one up, as ``start_run`` does; no other process works there meanwhile.

    What ``check_run`` looked at before the pictures were read is looked at again: another process may have been faster.

    Raises:
        RunError, FileError: As ``check_run`` and ``start_run`` do, and where another process is at work.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with suppress(NotImplementedError):  # some file systems know no locks
            lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder}: another process is working there; wait for it, or choose another --out (is none? delete {LOCK})"
        ) from None
    try:
        check_run(folder, spec, resume, verb)
        start_run(folder, spec, verb, surroundings)
        yield
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def finish_run(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """Write the evaluation, last of all; remove what only an unfinished run needs."""
    for path in (*folder.iterdir(), *(folder / ADAPTER).iterdir()):
        if _ASIDE.fullmatch(path.name):  # left by a kill in the middle of writing
            path.unlink()
    write_json(folder / EVALUATION, evaluation)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _check_same(folder: Path, spec: AdaptSpec) -> None:
    there = read_spec(folder / SPEC)
    if there.digest == spec.digest:
        return
    old, new = _flat(there.model_dump(mode="json")), _flat(spec.model_dump(mode="json"))
    differing = [key for key in old | new if old.get(key) != new.get(key)]
    changed = [f"{key} is {old.get(key)!r} there, {new.get(key)!r} here" for key in differing]
    raise RunError(f"{folder}: this run was asked for something else ({'; '.join(changed)}); choose another --out")


def _flat(fields: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def write_json(path: Path, content: Any) -> None:
    """Write plain data; floats must be finite."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def json_lines(text: str) -> list[dict[str, Any]]:
    """A value a line. Only a line feed ends one: names may hold what Unicode takes for the end of a line."""
    return [json.loads(line) for line in text.split("\n") if line]


def settings(spec: AdaptSpec, device: str, precision: str, pictures: int) -> dict[str, Any]:
    """How the training on so many labelled pictures ran, for the evaluation."""
    training, hybrid = spec.training, spec.adapter.kind == "hybrid"
    kind = "sparse_delta" if hybrid else spec.adapter.kind
    return {
        "steps": training.steps,
        "learning_rate": peak_rate(kind, training, 0 if hybrid else pictures),
        "batch_size": training.batch_size,
        "views": spec.data.views,
        "augment": spec.data.augment,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "device": device,
    }
