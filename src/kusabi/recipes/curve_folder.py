"""A learning curve on disk: what was asked, one line for each trained adapter, and, last, what follows from them.

``spec.toml`` and ``environment.json`` are as in a run; ``answers.jsonl`` holds a line for each number of shots and
draw, in that order, and is replaced as a whole, so that it is never torn; ``curve.json`` comes last and means finished.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kusabi.errors import RunError, SpecError
from kusabi.evaluation.stored import CURVE
from kusabi.files import write_bytes
from kusabi.recipes.run_folder import check_asked, check_run, json_lines
from kusabi.spec import AdaptSpec

ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class CurveAsked:
    """Numbers of shots, rising; draws of the support set; labels more whose gain is asked for; what doubling is worth.

    ``worth`` is a gain in accuracy, as a share.
    """

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 5
    more: int = 50
    worth: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what makes no curve.

        Raises:
            SpecError: Listing all that is wrong.
        """
        wrong = []
        if len(self.shots) < 2 or list(self.shots) != sorted(set(self.shots)) or min(self.shots) < 1:
            wrong.append(f"shots {list(self.shots)}: two or more different numbers from 1 up, rising")
        if self.draws < 2:
            wrong.append(f"{self.draws} draws: two are the least, since one has no spread")
        if self.more < 1:
            wrong.append(f"{self.more} more labels: at least one")
        if not 0 < self.worth < 1:
            wrong.append(f"a gain of {100 * self.worth:g} points: above 0 and below 100")
        if wrong:
            raise SpecError("; ".join(wrong))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"shots": list(self.shots), "draws": self.draws, "more": self.more, "worth": self.worth}


def check_curve(folder: Path, spec: AdaptSpec, asked: CurveAsked, resume: bool) -> bool:
    """Whether a curve may go there; True when it is finished already.

    Raises:
        RunError: If something is in the way, or what is there was asked for something else.
    """
    check_run(folder, spec, resume, "curve")
    check_asked(folder, "curve", asked.to_json())
    return (folder / CURVE).exists()


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """All finished lines; none where there is no file.

    Raises:
        RunError: If the file is damaged.
    """
    path = folder / ANSWERS
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return json_lines(text)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); delete it to train its adapters again") from None


def write_answers(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Replace the file by these lines, in the order of shots and draws."""
    ordered = sorted(lines, key=lambda line: (line["shots"], line["draw"]))
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in ordered)
    write_bytes(folder / ANSWERS, text.encode())
