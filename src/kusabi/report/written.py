"""Finished runs become one page on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kusabi.errors import RunError, SpecError
from kusabi.evaluation.pool import pool, task_key
from kusabi.evaluation.stored import (
    ABLATION,
    COMPARISON,
    CURVE,
    read_ablation,
    read_comparison,
    read_curve,
    read_evaluation,
    read_thumbnails,
)
from kusabi.files import make_folder, write_bytes
from kusabi.report.ablation_page import render_ablation
from kusabi.report.candidates_page import render_comparison
from kusabi.report.curve_page import render_curve
from kusabi.report.page import render
from kusabi.report.words import LANGUAGES


def write_report(runs: Sequence[Path], out: Path | None = None, language: str = "en") -> Path:
    """Write the page of some runs; those that differ in their seed alone are pooled.

    Args:
        runs: Finished run folders, or the folder of a learning curve, of an ablation, or of a comparison of models.
        out: The page; ``report.html`` in the run, or beside several runs, when absent.
        language: ``en`` or ``ja``.

    Raises:
        RunError: If a folder is no finished run, or something that is no page would be overwritten.
        SpecError: If the language is not known.
    """
    if language not in LANGUAGES:
        raise SpecError(f"--language {language}: not known; choose {' or '.join(LANGUAGES)}")
    for name, render_one in (
        (CURVE, lambda folder: render_curve(read_curve(folder), language)),
        (ABLATION, lambda folder: render_ablation(read_ablation(folder), language)),
        (COMPARISON, lambda folder: render_comparison(read_comparison(folder), language)),
    ):
        if any((run / name).exists() for run in runs):
            _check_alone(runs)
            return _written(out or runs[0] / _name(language), render_one(runs[0]))
    groups: dict[str, list[tuple[dict[str, Any], dict[str, str]]]] = {}
    for run in runs:
        evaluation = read_evaluation(run)
        groups.setdefault(task_key(evaluation), []).append((evaluation, read_thumbnails(run)))
    tasks: list[tuple[Mapping[str, Any], Mapping[str, str]]] = [
        (pool([evaluation for evaluation, _ in group]), {k: v for _, small in group for k, v in small.items()})
        for group in groups.values()
    ]
    return _written(out or (runs[0] if len(runs) == 1 else runs[0].parent) / _name(language), render(tasks, language))


def _check_alone(folders: Sequence[Path]) -> None:
    if len(folders) > 1:
        raise RunError(
            f"{len(folders)} folders, a learning curve, an ablation or a comparison of models among them: "
            "each has a page of its own"
        )


def _name(language: str) -> str:
    return "report.html" if language == "en" else f"report.{language}.html"


def _own(page: Path) -> bool:
    """Whether it is a page of ours, which another may replace: by the end of its title."""
    return page.read_bytes().partition(b"</title>")[0].endswith(b"Kusabi")


def _written(page: Path, content: str) -> Path:
    if not page.name:
        raise SpecError("--out '': names no file; give the page's, such as report.html")
    if page.is_dir() or (page.exists() and not _own(page)):
        raise RunError(f"{page}: something else than a page is there; choose another --out")
    make_folder(page.parent)
    write_bytes(page, content.encode())
    return page
