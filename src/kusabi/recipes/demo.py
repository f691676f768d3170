"""The main job on simulated fabric with defects (Megahed et al. 2025): three seeds, one page.

Pictures to learn from and pictures to be judged on come from different blocks of the package's numbering. Every query
picture runs through the frozen layers once for all seeds.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kusabi.data.enumeration import enumerated
from kusabi.data.split import Folds, few_shot_split
from kusabi.errors import DataError, RunError
from kusabi.files import check_place
from kusabi.recipes.adapt import fit_one, judge_one, judged, write_evaluation
from kusabi.recipes.environment import environment
from kusabi.recipes.question import pose
from kusabi.recipes.run_folder import check_run, start_run
from kusabi.recipes.watch import Watch, silent
from kusabi.spec import AdaptSpec
from kusabi.spec_file import build

SEEDS = (0, 1, 2)
LEARNED, JUDGED = slice(0, 250), slice(250, 350)  # index blocks of every class
FIELDS: dict[str, Any] = {
    "backbone": {"input_size": 224},
    "data": {"shots": 16, "views": 3},
    "training": {"steps": 12},
}  # a demo is brief


def demo(
    out: Path, *, device: str = "cpu", threads: int | None = None, command: str = "kusabi demo", watch: Watch = silent
) -> list[Path]:
    """Adapt with three seeds and evaluate.

    Returns:
        The finished run folders.

    Raises:
        DataError: If the package with the pictures is not installed.
        RunError: If something else than a demo is there already.
    """
    specs = [build(FIELDS | {"seed": seed}) for seed in SEEDS]
    runs = [out / f"seed-{seed}" for seed in SEEDS]
    own = {"textile", ".textile", "report.html", "report.ja.html", *(run.name for run in runs)}
    others = sorted(path.name for path in out.iterdir() if path.name not in own) if out.is_dir() else []
    if others:
        raise RunError(f"{out}: something else than a demo is there ({enumerated(others)}); choose another --out")
    check_place(out)
    source = textile_folder(out / "textile")
    waiting = [(run, spec) for run, spec in zip(runs, specs, strict=True) if not check_run(run, spec, True, "adapt")]
    if waiting:
        _run_all(source, waiting, device, threads, command, watch)
    return runs


def _run_all(
    source: Path, waiting: list[tuple[Path, AdaptSpec]], device: str, threads: int | None, command: str, watch: Watch
) -> None:
    first = pose(str(source), waiting[0][1], device=device, threads=threads, watch=watch)
    questions = [replace(first, split=few_shot_split(first.dataset, s.data.shots, s.seed)) for _, s in waiting]
    fitted = []
    for (run, spec), question in zip(waiting, questions, strict=True):

        def named(stage: str, done: int, total: int, seed: int = spec.seed, **facts: Any) -> None:
            watch(f"seed {seed}: {stage}", done, total, **facts)

        start_run(run, spec, "adapt", environment() | {"command": command, **question.given()})
        fitted.append(fit_one(question, spec, question.split.support, named, run))
    began = time.perf_counter()
    split = first.split
    assert not isinstance(split, Folds), "the demo's folder has a test split"
    answers = judge_one(first, split.query, [one.adapter for one in fitted], watch)
    judging = (time.perf_counter() - began) / len(waiting)
    for i, ((run, spec), question) in enumerate(zip(waiting, questions, strict=True)):
        scores = judged(question, fitted[i], answers, split.query, i)
        again = (
            f"kusabi adapt {source} --shots {spec.data.shots} --views {spec.data.views} --steps {spec.training.steps} "
            f"--input-size {spec.backbone.input_size} --seed {spec.seed} --out {run}"
        )
        write_evaluation(run, question, spec, fitted[i], scores, device, again, fitted[i].seconds + judging)


def textile_folder(folder: Path) -> Path:
    """Lay the pictures out as anybody's own folder: ``train`` and ``test``, a folder a class.

    Raises:
        DataError: If the package with the pictures is not installed.
    """
    try:
        import conformal_clip_data as package
    except ImportError:
        raise DataError(
            "the demo's pictures are not installed; run: pip install 'kusabi[demo]', "
            "or adapt to a folder of your own: kusabi adapt FOLDER"
        ) from None
    classes = {
        "nominal": package.nominal_dir(), "global defect": package.global_dir(), "local defect": package.local_dir()
    }  # fmt: skip
    if folder.exists():
        return folder
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    for name, place in classes.items():
        pictures = sorted(Path(place).glob("*.jpg"), key=lambda path: int(path.stem.rpartition("_")[2]))
        for split, block in (("train", LEARNED), ("test", JUDGED)):
            (aside / split / name).mkdir(parents=True)
            for picture in pictures[block]:
                shutil.copy(picture, aside / split / name)
    aside.replace(folder)
    return folder
