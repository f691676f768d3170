"""What a finished run says, read back from its folder."""

import json
from pathlib import Path
from typing import Any

from kusabi.errors import RunError

SPEC, EVALUATION, THUMBNAILS = "spec.toml", "evaluation.json", "thumbnails.json"
CURVE = "curve.json"
ABLATION = "ablation.json"
COMPARISON = "comparison.json"


def read_evaluation(run: Path) -> dict[str, Any]:
    """The content of ``evaluation.json``.

    Raises:
        RunError: If the folder is no run, or the run is not finished, or the file is damaged.
    """
    return _read(run, EVALUATION)


def read_curve(folder: Path) -> dict[str, Any]:
    """The content of ``curve.json``.

    Raises:
        RunError: As ``read_evaluation``.
    """
    return _read(folder, CURVE)


def read_ablation(folder: Path) -> dict[str, Any]:
    """The content of ``ablation.json``.

    Raises:
        RunError: As ``read_evaluation``.
    """
    return _read(folder, ABLATION)


def read_comparison(folder: Path) -> dict[str, Any]:
    """The content of ``comparison.json``.

    Raises:
        RunError: As ``read_evaluation``.
    """
    return _read(folder, COMPARISON)


def _read(run: Path, name: str) -> dict[str, Any]:
    path = run / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        what = "an unfinished run; go on with it by --resume" if (run / SPEC).exists() else "not a run"
        raise RunError(f"{run}: {what} (no {name})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or make the run again") from None
    if not isinstance(found, dict) or not {"schema", "task"} <= found.keys():
        raise RunError(f"{path}: damaged (it says nothing of a task); restore it, or make the run again")
    return found


def read_thumbnails(run: Path) -> dict[str, str]:
    """File -> data URI of the pictures worth showing; empty when the run kept none.

    Raises:
        RunError: If the file is damaged.
    """
    path = run / THUMBNAILS
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or delete it for a page without pictures") from None
