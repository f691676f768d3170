"""A learning curve becomes one self-contained page, by the rules of ``page.py``."""

from collections.abc import Mapping
from typing import Any

from kusabi.errors import CheckpointError
from kusabi.report.curve_answers import answers
from kusabi.report.curve_figure import METHODS, learning
from kusabi.report.page import templates
from kusabi.report.words import read_words

SCHEMA = 1


def render_curve(found: Mapping[str, Any], language: str) -> str:
    """The page of the content of ``curve.json``.

    Raises:
        CheckpointError: When it is of another schema.
        SpecError: When the language is not known.
    """
    words = read_words(language)
    if found.get("schema") != SCHEMA or found.get("kind") != "curve":
        raise CheckpointError(
            f"a learning curve of schema {found.get('schema')!r} cannot be shown; this version reads schema {SCHEMA}: "
            "measure it again"
        )
    ours = found["methods"]["adapted"]
    return templates(words).get_template("curve.html.jinja").render(
        found=found, answers=answers(found, words), drawn=learning(found), methods=METHODS, ours=ours,
        verdict={"stop": "better", "go on": "worse", "open": "unclear"}[ours["stop"]["verdict"]],
    )  # fmt: skip
