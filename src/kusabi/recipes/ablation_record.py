"""Trials become ``ablation.json``: every placement, the predictor beside the truth, and a recommendation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kusabi.data.folds import group_of
from kusabi.data.split import Folds, Split
from kusabi.evaluation.choice_apart import Draw, choose_apart, chosen_by, judges_choose
from kusabi.evaluation.placement import against_default, correlations, recommend, summary
from kusabi.recipes.environment import environment
from kusabi.recipes.evaluation_record import judging, task
from kusabi.recipes.placements import Trial, Trials
from kusabi.recipes.question import Question
from kusabi.spec import AUTO, AdaptSpec
from kusabi.training.placement_choice import RULE, Pull, layer_energies

SCHEMA = 1

Known = Mapping[tuple[int, str], Mapping[str, Any]]


def record(
    question: Question, spec: AdaptSpec, splits: Mapping[int, Split | Folds], tried: Trials, known: Known,
    asked: Mapping[str, Any], command: str,
) -> dict[str, Any]:  # fmt: skip
    """The content of ``ablation.json``."""
    files = {seed: [example.file for example in judging(split)] for seed, split in splits.items()}
    groups = {example.file: group_of(example) for split in splits.values() for example in judging(split)}
    lines = {placement: [known[seed, placement] for seed in splits] for placement in tried.placements}
    default = lines[tried.default]
    places = {name: summary(name, of, default, files, groups) for name, of in lines.items()}
    chosen = [known[seed, AUTO]["chosen"] for seed in splits]
    auto = [known[seed, name] for seed, name in zip(splits, chosen, strict=True)]
    mean = _mean_pulls([known[seed, AUTO]["energies"] for seed in splits])
    energies = layer_energies(mean)
    alone = {(t.tower, int(t.label)): places[t.placement] for t in tried.trials if t.family == "in"}
    draws = {seed: _draw(split) for seed, split in splits.items()}
    advice = recommend(lines, tried.default, pictures=chosen_by(draws, splits))
    taken = places[advice["placement"]]
    apart = choose_apart(lines, tried.default, draws)
    return {
        "schema": SCHEMA,
        "task": task(question.dataset, question.split, question.prompts, spec, len(next(iter(files.values()))))
        | {"seeds": list(splits)},
        "cross_validated": any(isinstance(split, Folds) for split in splits.values()),
        "asked": dict(asked),
        "budget": tried.budget,
        "default": tried.default,
        "recommendation": {
            **advice,
            "difference": against_default(apart.lines, default, files, groups),
            "chosen_anew": dict(apart.answers) if judges_choose(draws) else None,
            "seconds": taken["seconds"],
            "default_seconds": places[tried.default]["seconds"],
            "layers_backward": taken["layers_backward"],
            "entries": taken["entries"],
        },
        "trials": [_plain(trial) for trial in tried.trials],
        "left_out": [_plain(trial) for trial in tried.left_out],
        "placements": places,
        "auto": {**summary(AUTO, auto, default, files, groups), "rule": RULE, "chosen": chosen},
        "predictor": {
            "weights": [pull.to_json() for pull in mean],
            "layers": [{"tower": t, "layer": n, "energy": energy} for (t, n), energy in energies.items()],
            "correlation": correlations(energies, alone),
            "seeds_without_text": sum(not _text_is_pulled(known[seed, AUTO]["energies"]) for seed in splits),
        },
        "backbone": question.backbone.card(),
        "environment": environment(),
        "command": command,
    }


def _draw(split: Split | Folds) -> Draw:
    """Who chooses and who judges."""
    labelled = [group_of(example) for example in split.support]
    if isinstance(split, Folds):
        fold = {example.file: number for number, one in enumerate(split.folds) for example in one.query}
        return Draw(labelled, labelled, [fold[example.file] for example in split.support])
    return Draw(labelled, [group_of(example) for example in split.query], [0] * len(split.query))


def _text_is_pulled(energies: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any weight of the text tower has a gradient: against class means alone, blend 1, none has."""
    return any(weight["energy"] > 0 for weight in energies if weight["tower"] == "text")


def placement_file(found: Mapping[str, Any]) -> str:
    """TOML that ``adapt --placement`` takes: the recommended placement, at the budget of the trials."""
    advice = found["recommendation"]
    return (
        f"# Recommended by kusabi ablate for {found['task']['name']!r} at {found['task']['shots']} shots: "
        f'{advice["action"]}.\n[adapter]\nplacement = "{advice["placement"]}"\nbudget = {found["budget"]}\n'
    )


def _plain(trial: Trial) -> dict[str, str]:
    return {"family": trial.family, "tower": trial.tower, "label": trial.label, "placement": trial.placement}


def _mean_pulls(seeds: list[list[dict[str, Any]]]) -> list[Pull]:
    """Mean over seeds of every weight's share in the sum of all energies of its seed."""
    shares = np.mean([np.array([w["energy"] for w in one]) / sum(w["energy"] for w in one) for one in seeds], axis=0)
    return [Pull(**{**weight, "energy": float(share)}) for weight, share in zip(seeds[0], shares, strict=True)]
