"""A comparison of models becomes one self-contained page, by the rules of ``page.py``."""

from collections.abc import Mapping
from typing import Any

from kusabi.errors import CheckpointError
from kusabi.report.candidates_answers import answers
from kusabi.report.candidates_figure import groups, ranked, timed_alike, ways_of
from kusabi.report.page import templates
from kusabi.report.words import read_words

SCHEMA = 1


def render_comparison(found: Mapping[str, Any], language: str) -> str:
    """The page of the content of ``comparison.json``.

    Raises:
        CheckpointError: When it is of another schema.
        SpecError: When the language is not known.
    """
    words = read_words(language)
    if found.get("schema") != SCHEMA or found.get("kind") != "comparison":
        raise CheckpointError(
            f"a comparison of schema {found.get('schema')!r} cannot be shown; this version reads schema {SCHEMA}: "
            "measure it again"
        )
    advice, rows = found["recommendation"], ranked(found)
    clear = advice["action"] == "take" and not advice["level"] and len(rows) > 1
    return templates(words).get_template("candidates.html.jinja").render(
        found=found, answers=answers(found, words), rows=rows, ways=ways_of(found), drawn=groups(found),
        unclear=[row for row in rows if row["licence"]["note"]], alike=timed_alike(rows),
        verdict="worse" if advice["action"] == "none" else "better" if clear else "unclear",
    )  # fmt: skip
