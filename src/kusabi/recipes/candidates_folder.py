"""A comparison on disk: what was asked, a line for each candidate, and, last, what follows from them.

``spec.toml`` and ``environment.json`` are as in a run; ``candidates.jsonl`` is replaced as a whole, so that it is never
torn; ``comparison.json`` comes last and means that every candidate had its turn.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kusabi.backbones.weights import digest_now
from kusabi.errors import RunError, SpecError, listed
from kusabi.files import write_bytes
from kusabi.recipes.run_folder import check_asked, check_run, json_lines
from kusabi.spec import AdaptSpec

CANDIDATES = "candidates.jsonl"


@dataclass(frozen=True)
class CandidatesAsked:
    """Model folders or Hub ids, in the order in which they take their turn; whether each gets a quick adapter."""

    backbones: tuple[str, ...]
    adapter: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no comparison.

        Raises:
            SpecError: If no candidate is named, or one twice.
        """
        twice = sorted({name for name in self.backbones if self.backbones.count(name) > 1})
        if twice:
            raise SpecError(f"--backbone {listed(twice)}: named more than once; name each candidate once")
        if not self.backbones:
            raise SpecError("no candidate: name at least one --backbone")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"backbones": list(self.backbones), "adapter": self.adapter}


def check_comparison(folder: Path, spec: AdaptSpec, asked: CandidatesAsked, resume: bool) -> None:
    """Whether a comparison may go there. Nothing is written.

    Raises:
        RunError: If something is in the way, or what is there was asked for something else.
    """
    check_run(folder, spec, resume, "baseline")
    check_asked(folder, "comparison", asked.to_json())


def read_candidates(folder: Path) -> dict[str, dict[str, Any]]:
    """What was asked -> the row of every candidate that was measured; failed ones get another turn.

    Raises:
        RunError: If the file is damaged.
    """
    path = folder / CANDIDATES
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = json_lines(text)
        return {row["asked"]: row for row in rows if row["error"] is None}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); delete it to measure its candidates again") from None


def check_models(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to set measured candidates beside others where their weights have changed since.

    Hub ids are left alone: a row names the revision that it is of.

    Args:
        folder: The comparison.
        rows: As ``read_candidates`` gives them.

    Raises:
        RunError: Naming every model folder that holds other weights now.
        BackboneError: If the weights of one cannot be read any more.
    """
    changed = []
    for asked, row in rows.items():
        there, here = row["backbone"]["digest"], digest_now(asked)
        if here and there != here:
            changed.append(f"{asked} (digest {there[:12]} there, {here[:12]} here)")
    if changed:
        raise RunError(
            f"{folder}: the weights of {listed(changed)} have changed since this comparison measured them; put back "
            "what it began with, or choose another --out"
        )


def write_candidates(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file by these rows."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_bytes(folder / CANDIDATES, text.encode())
