"""Fit an adapter to a folder of labelled pictures and ask it about the first few pictures of that folder.

    python examples/adapt_folder.py FOLDER [RUN]

FOLDER holds a sub-folder of pictures for each class. Started again, it goes on where it was, or answers at once.
"""

import sys
from pathlib import Path

from kusabi.errors import KusabiError
from kusabi.recipes.adapt import adapt
from kusabi.recipes.stored_adapter import predict
from kusabi.report.written import write_report
from kusabi.spec_file import build


def main(folder: Path, run: Path) -> None:
    """Adapt, tell what it bought, write the page, predict."""
    spec = build({"seed": 0, "data": {"shots": 16}})
    found = adapt(str(folder), spec, run, resume=True)
    for way in ("zero_shot", "class_mean", "linear_probe", "adapted"):
        low, high = found[way]["interval"]
        print(f"{way}: {found[way]['accuracy']:.1%} ({low:.1%} to {high:.1%})")
    print(f"page: {write_report([run])}")
    judged = [folder / picture["file"] for picture in found["pictures"][:3]]
    for answer in predict(run, judged):
        print(f"{answer['file']}: {answer['label']} ({answer['scores'][answer['label']]:.1%})")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else "runs/example"))
    except KusabiError as error:
        sys.exit(str(error))
