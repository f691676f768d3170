"""Evaluations become one self-contained HTML page: no network, no script, no font of its own.

The same input gives the same bytes: nothing here knows the time. Words are in ``words.*.toml``, drawings and layout in
the templates, numbers in the evaluation; names from outside are escaped by the template engine.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kusabi.errors import CheckpointError, RunError
from kusabi.report import facts, figures, numbers
from kusabi.report.pictures import shown
from kusabi.report.verdict import outcome, verdict
from kusabi.report.words import Words, read_words

SCHEMA = 1
MANY_CLASSES = 12
"""With more classes than this a confusion matrix is no longer readable, and the most confused pairs stand in for it."""


def render(tasks: Sequence[tuple[Mapping[str, Any], Mapping[str, str]]], language: str) -> str:
    """The page for one or more tasks.

    Args:
        tasks: For each task its evaluation (the content of ``evaluation.json``, of one run or pooled over seeds) and
            its thumbnails: file -> ``data:image/…`` URI. Files without a thumbnail are shown by name.
        language: ``en`` or ``ja``.

    Raises:
        RunError: When there is no task.
        CheckpointError: When an evaluation is of another schema.
        SpecError: When the language is not known.
    """
    if not tasks:
        raise RunError("no evaluation to show; name at least one finished run")
    words = read_words(language)
    for evaluation, thumbnails in tasks:
        if evaluation.get("schema") != SCHEMA:
            raise CheckpointError(
                f"an evaluation of schema {evaluation.get('schema')!r} cannot be shown; this version reads schema "
                f"{SCHEMA}: evaluate the run again"
            )
        assert all(uri.startswith("data:image/") for uri in thumbnails.values()), "a thumbnail is a data:image URI"
    views = [_view(f"task-{place}", *task, words) for place, task in enumerate(tasks, start=1)]
    return templates(words).get_template("page.html.jinja").render(tasks=views)


def templates(words: Words) -> Environment:
    """The templates of pages, with the words and filters that they use."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals["words"] = words
    found.filters.update({format.__name__: partial(format, words) for format in numbers.FORMATS})
    found.filters |= {"signed": numbers.signed, "outcome": outcome, "breakable": _breakable}
    return found


def _breakable(path: str) -> Markup:
    """A path that may be broken after its marks rather than anywhere."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_.-])", path))


def _view(anchor: str, evaluation: Mapping[str, Any], thumbnails: Mapping[str, str], words: Words) -> dict[str, Any]:
    """What the template of a task reads."""
    task, records = evaluation["task"], evaluation["training"].get("records", [])
    curves = [figures.curve(records, key) for key in ("loss", "support_accuracy")]
    drawn_stages = figures.stages(evaluation["cost"].get("stages", []))
    return {
        "anchor": anchor,
        "evaluation": evaluation,
        "thumbnails": thumbnails,
        "pooled": "accuracies" in evaluation["adapted"],
        "verdict": verdict(evaluation, words),
        "summary": facts.summary(evaluation, words),
        "bars": figures.bars(evaluation),
        "metrics": facts.metrics(evaluation, words),
        "paired": facts.paired(evaluation, words),
        "many_classes": len(task["classes"]) > MANY_CLASSES,
        "confusion": {way: figures.confusion(evaluation[way]) for way in ("zero_shot", "adapted")},
        "pairs": {way: figures.confused_pairs(evaluation[way]) for way in ("zero_shot", "adapted")},
        "recalls": list(zip(evaluation["zero_shot"]["per_class"], evaluation["adapted"]["per_class"], strict=True)),
        "shown": {kind: shown(evaluation["flips"][kind], thumbnails) for kind in ("fixed", "broken")},
        "lead": facts.lead(evaluation, words),
        "trained": facts.trained(evaluation, words),
        "projections": facts.projections(evaluation, words),
        "head_entries": evaluation["adapter"].get("head_entries"),
        "map": figures.model_map(evaluation["adapter"].get("targets", []), evaluation["backbone"].get("layers") or {}),
        "curves": [drawn for drawn in curves if drawn is not None],
        "cost": facts.cost(evaluation, words),
        "stages": list(zip(drawn_stages, facts.stages(evaluation, words), strict=True)),
        "commands": facts.commands(evaluation),
        "card": facts.card(evaluation, words),
        "settings": facts.settings(evaluation, words),
        "versions": facts.versions(evaluation, words),
        "digests": facts.digests(evaluation, words),
        "prompts": list(zip(task["classes"], task.get("prompts") or [], strict=False)),
        "notes": list(task.get("notes") or []),
    }
