"""Choosing the model: several backbones on one split and one set of query pictures, before anybody commits to one.

Candidates take their turns; one is in memory at a time, and one that fails costs the others nothing. Query pictures
judge and choose among the candidates; nothing is tuned on them, and every candidate gets the same spec.
"""

import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kusabi.data.dataset import Dataset
from kusabi.data.folds import group_of
from kusabi.data.prompts import class_prompts
from kusabi.data.split import Folds, few_shot_split
from kusabi.errors import BackboneError, KusabiError, SpecError, listed
from kusabi.evaluation.candidates import Candidate, choose
from kusabi.evaluation.clusters import Groups, numbered
from kusabi.evaluation.stored import COMPARISON, read_comparison
from kusabi.recipes.beside import refuse_beside
from kusabi.recipes.candidate import candidate, failed
from kusabi.recipes.candidates_folder import (
    CandidatesAsked,
    check_comparison,
    check_models,
    read_candidates,
    write_candidates,
)
from kusabi.recipes.environment import environment
from kusabi.recipes.evaluation_record import task
from kusabi.recipes.question import read_pictures, use_device
from kusabi.recipes.run_folder import check_given, running, write_json
from kusabi.recipes.watch import Watch, silent
from kusabi.spec import AdaptSpec

SCHEMA = 1


def compare_candidates(
    source: str,
    spec: AdaptSpec,
    asked: CandidatesAsked,
    out: Path | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    command: str = "",
    watch: Watch = silent,
) -> dict[str, Any]:
    """Measure every candidate and say which one to take; stopped or killed, it goes on candidate by candidate.

    Args:
        source: Folder of pictures, saved dataset, or Hub id.
        spec: What is asked of each candidate; its backbone is replaced.
        asked: The candidates.
        out: Folder to write; none where absent.
        resume: Go on with the comparison that is there, if any: candidates that were measured are left alone, those
            that failed get another turn.
        device: Where the models run.
        threads: CPU threads; torch's own choice when absent.
        command: What the user typed, for the record.
        watch: Told about progress.

    Returns:
        The content of ``comparison.json``. A candidate that failed is a row with its ``error``.

    Raises:
        BackboneError: If no candidate could be measured, naming the reason of each.
        KusabiError: Whatever else the user can put right; the pictures are checked first.
    """
    if spec.backbone.revision is not None and len(asked.backbones) > 1:
        raise SpecError("--revision belongs to one model, but several are compared; leave it, or give model folders")
    refuse_beside(spec, "baseline")
    spec = _with_backbone(spec, next(iter(asked.backbones)))
    if out is not None:
        check_comparison(out, spec, asked, resume)
    use_device(device, threads)
    dataset = read_pictures(source, spec, watch)
    split, prompts = few_shot_split(dataset, spec.data.shots, spec.seed), _prompts(dataset, spec)
    surroundings = environment()
    rows: dict[str, dict[str, Any]] = {}
    given = {"command": command, "data_digest": dataset.digest, "comparison": asked.to_json()}
    if out is not None:
        check_given(out, given)
        rows = read_candidates(out)
        check_models(out, rows)
        if (out / COMPARISON).exists() and len(rows) == len(asked.backbones):
            return read_comparison(out)
    with nullcontext() if out is None else running(out, spec, "baseline", surroundings | given, resume):
        for done, backbone in enumerate(asked.backbones):
            watch("candidates", done, len(asked.backbones))
            if backbone not in rows:
                rows[backbone] = _turn(dataset, _with_backbone(spec, backbone), device, asked.adapter, watch)
            if out is not None:
                write_candidates(out, list(rows.values()))
        watch("candidates", len(asked.backbones), len(asked.backbones))
        measured = [rows[backbone] for backbone in asked.backbones]
        if all(row["error"] for row in measured):
            reasons = listed([row["error"] for row in measured], "; ")
            raise BackboneError(f"none of {len(measured)} candidates could be measured: {reasons}")
        query = [one for part in split.folds for one in part.query] if isinstance(split, Folds) else split.query
        found = {
            "schema": SCHEMA,
            "kind": "comparison",
            "task": task(dataset, split, prompts, spec, len(query)),
            "asked": asked.to_json(),
            **conclusions(
                measured,
                len(dataset.classes),
                "adapted" if asked.adapter else "linear_probe",
                numbered([group_of(one) for one in query]),
            ),
            "pictures": [{"file": one.file, "label": one.label} for one in query],
            "environment": surroundings,
            "command": command,
        }
        if out is not None:
            write_json(out / COMPARISON, found)
    return found


def conclusions(
    rows: Sequence[Mapping[str, Any]], classes: int, way: str, groups: Groups | None = None
) -> dict[str, Any]:
    """Rows with their names, which way of answering they are ``judged_by``, and the ``recommendation``.

    Args:
        rows: Of all candidates; at least one was measured.
        classes: Number of classes.
        way: ``adapted``, or ``linear_probe`` where no adapter was trained.
        groups: Of the query pictures (``clusters.py``); each is one by itself when absent.
    """
    names = _names(rows)
    candidates = [
        Candidate(
            name,
            np.array([hit == "1" for hit in row["right"][way]]),
            row["backbone"]["parameters"],
            (row["speed"]["lowest"], row["speed"]["highest"]),
            row[way]["interval"][0] > 1 / classes,
        )
        for name, row in zip(names, rows, strict=True)
        if row["error"] is None
    ]
    return {
        "judged_by": way,
        "candidates": [{"name": name, **row} for name, row in zip(names, rows, strict=True)],
        "recommendation": choose(candidates, groups),
    }


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each model's folder or its Hub id; where two are called alike, what was typed."""
    short = [row["asked"] if row["error"] else row["backbone"]["source"] for row in rows]
    return [row["asked"] if short.count(name) > 1 else name for name, row in zip(short, rows, strict=True)]


def _prompts(dataset: Dataset, spec: AdaptSpec) -> tuple[tuple[str, ...], ...]:
    return class_prompts(dataset.classes, spec.data.templates, spec.data.names)


def _with_backbone(spec: AdaptSpec, backbone: str) -> AdaptSpec:
    return spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"backbone": backbone})})


def _turn(dataset: Dataset, spec: AdaptSpec, device: str, adapter: bool, watch: Watch) -> dict[str, Any]:
    """The row of one candidate; all memory that it took is free afterwards."""
    name = spec.backbone.backbone

    def named(stage: str, done: int, total: int, **facts: Any) -> None:
        watch(f"{Path(name).name}: {stage}", done, total, **facts)

    try:
        return candidate(dataset, spec, device, adapter=adapter, watch=named)
    except KusabiError as error:
        return failed(name, str(error))
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        first = (str(error).splitlines() or ["memory"])[0]
        return failed(name, f"{name}: too large for the memory of {device} ({first}); try --dtype bfloat16")
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _of_memory(error: Exception) -> bool:
    """Whether memory ran out; on the CPU torch has no type of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
