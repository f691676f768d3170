"""Where an adapter should sit: one training per placement and seed at equal budget, and what follows from them.

The frozen lower layers run once per seed: placements are tried from the bottom up, and what enters a layer is carried
up to the next one that is needed, so that one layer's activations are kept at a time.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kusabi.backbones.digest import module_digest
from kusabi.data.split import Folds, Split, few_shot_split
from kusabi.errors import RunError, SpecError
from kusabi.evaluation.stored import ABLATION, read_ablation
from kusabi.files import write_bytes, writing
from kusabi.recipes.ablation_record import placement_file, record
from kusabi.recipes.auto_placement import settled
from kusabi.recipes.beside import refuse_beside
from kusabi.recipes.environment import environment
from kusabi.recipes.placements import FAMILIES, Trials, trials_of
from kusabi.recipes.question import Question, given_now, pose, read_pictures, setting_of
from kusabi.recipes.run_folder import check_given, check_run, json_lines, running, write_json
from kusabi.recipes.trial import Side, measured
from kusabi.recipes.watch import Watch, silent, stage
from kusabi.spec import AUTO, AdaptSpec
from kusabi.spec_file import PLACEMENT
from kusabi.training.placed import at
from kusabi.training.placement_choice import choose_placement, pulls
from kusabi.training.views import encode_views

TRIALS = "trials.jsonl"


def ablate(
    source: str,
    spec: AdaptSpec,
    out: Path,
    *,
    families: Sequence[str] = FAMILIES,
    seeds: int = 3,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    command: str = "",
    watch: Watch = silent,
) -> dict[str, Any]:
    """Try placements around that of a spec, and recommend one.

    Args:
        source: Folder of pictures, saved dataset, or Hub id.
        spec: What each training asks; its placement is the one to compare with, its entries the budget of all. With
            an open depth it is what ``adapt`` would settle on for the labelled pictures of the first seed.
        out: Folder to write: ``trials.jsonl`` grows by a line a training, ``ablation.json`` comes last, and
            ``placement.toml`` is what ``adapt --placement`` takes.
        families: Which placements, see ``placements.FAMILIES``.
        seeds: How many, from the spec's own upwards; each draws other labelled pictures.
        resume: Go on with the ablation that is there; more seeds or families add to it.
        device: Where the model runs.
        threads: CPU threads; torch's own choice when absent.
        command: What the user typed, for the record.
        watch: Told about progress.

    Returns:
        The content of ``ablation.json``.

    Raises:
        KusabiError: Whatever the user can put right.
    """
    if spec.adapter.placement == AUTO:
        raise SpecError("--placement auto: an ablation tries it by itself; name the placement to compare with, or none")
    refuse_beside(spec, "ablate")
    check_run(out, spec, resume, "ablate")
    asked = {"trials": [family for family in FAMILIES if family in families], "seeds": seeds}
    if (out / ABLATION).exists():
        found = read_ablation(out)
        if found["asked"] == asked and set(families) <= set(FAMILIES):
            check_given(out, given_now(read_pictures(source, spec, watch), spec))
            return found
    question = pose(source, spec, device=device, threads=threads, watch=watch)
    trials_of(question.backbone, spec.adapter, families)  # what cannot be tried is refused before anything is written
    numbers = range(spec.seed, spec.seed + seeds)
    splits = {seed: few_shot_split(question.dataset, spec.data.shots, seed) for seed in numbers}
    with running(out, spec, "ablate", environment() | {"command": command, **question.given()}, resume):
        support = splits[spec.seed].support
        default = settled(
            setting_of(question, spec, len(support)), question.dataset, support, watch=watch, run=out
        ).spec
        tried = trials_of(question.backbone, default.adapter, families)
        before, lines = module_digest(question.backbone.module), Lines(out / TRIALS)
        total = seeds * (len(tried.placements) + 1)
        for seed, split in splits.items():
            _one_seed(question, spec.model_copy(update={"seed": seed}), split, tried, lines, watch, total)
        assert module_digest(question.backbone.module) == before, "training changed the frozen backbone"
        found = record(question, spec, splits, tried, lines.known, asked, command)
        write_bytes(out / PLACEMENT, placement_file(found).encode())
        write_json(out / ABLATION, found)
        return found


class Lines:
    """What is measured already, and the file that it is kept in: one line a training, flushed before the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a kill tears the last line
        if whole != text:
            write_bytes(path, whole.encode())
        try:
            self.known = {(line["seed"], line["placement"]): line for line in json_lines(whole)}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: damaged ({error}); delete it to train its adapters again") from None

    def add(self, line: dict[str, Any]) -> None:
        """Keep one."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.known[line["seed"], line["placement"]] = line


def _one_seed(
    question: Question, spec: AdaptSpec, split: Split | Folds, tried: Trials, lines: Lines, watch: Watch, total: int
) -> None:
    auto = lines.known.get((spec.seed, AUTO))
    wanted = [*tried.placements, *([auto["chosen"]] if auto else [])]
    if auto and all((spec.seed, placement) in lines.known for placement in wanted):
        return
    setting = setting_of(question, spec, len(split.support))
    side = _shown(question, split, spec, watch)
    if auto is None:
        found = pulls(setting, side.support)
        auto = {
            "seed": spec.seed, "placement": AUTO, "chosen": choose_placement(found, tried.budget),
            "energies": [pull.to_json() for pull in found],
        }  # fmt: skip
        lines.add(auto)
        wanted.append(auto["chosen"])
    missing = [placement for placement in dict.fromkeys(wanted) if (spec.seed, placement) not in lines.known]
    settings = {placement: at(setting, placement, tried.budget) for placement in missing}
    for placement in sorted(missing, key=lambda name: settings[name].plan.first_layer.get("vision", 0)):
        layer = settings[placement].plan.first_layer.get("vision")
        if layer is not None and side.support.layer != layer:
            side = side.climbed(setting, layer)
        lines.add({"seed": spec.seed, "placement": placement, **measured(settings[placement], side)})
        watch("trainings", sum(name != AUTO for _, name in lines.known), total)


def _shown(question: Question, split: Split | Folds, spec: AdaptSpec, watch: Watch) -> Side:
    """All pictures of one seed, entering the first layer."""
    data = spec.data
    support = encode_views(
        question.backbone, question.dataset, split.support, 0, views=data.views, augment=data.augment, seed=spec.seed,
        precision=question.precision, progress=stage(watch, f"seed {spec.seed}: labelled pictures"),
    )  # fmt: skip
    if isinstance(split, Folds):
        fold = {example.file: number for number, one in enumerate(split.folds) for example in one.query}
        of_picture = torch.tensor([fold[example.file] for example in split.support], device=support.pictures.device)
        return Side(support, None, of_picture[support.pictures])
    query = encode_views(
        question.backbone, question.dataset, split.query, 0, views=1, augment="none", seed=spec.seed,
        progress=stage(watch, f"seed {spec.seed}: query pictures"),
    )  # fmt: skip
    return Side(support, query, None)
