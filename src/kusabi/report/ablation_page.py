"""An ablation becomes one self-contained page, by the rules of ``page.py``: the heat map is drawn on the model."""

from collections.abc import Mapping, Sequence
from typing import Any

from kusabi.errors import CheckpointError
from kusabi.evaluation.choice_apart import worth_of
from kusabi.report import numbers
from kusabi.report.grouped import remarks_on_groups
from kusabi.report.page import templates
from kusabi.report.words import Words, read_words

SCHEMA = 1
VERDICTS = {"keep": "unclear", "move": "better", "unknown": "unclear"}


def render_ablation(found: Mapping[str, Any], language: str) -> str:
    """The page of the content of ``ablation.json``.

    Raises:
        CheckpointError: When it is of another schema.
        SpecError: When the language is not known.
    """
    words = read_words(language)
    if found.get("schema") != SCHEMA:
        raise CheckpointError(
            f"an ablation of schema {found.get('schema')!r} cannot be shown; this version reads schema {SCHEMA}: "
            "measure it again"
        )
    return templates(words).get_template("ablation.html.jinja").render(
        found=found, towers=heat(found), rows=trials(found), advice=advice(found, words), read=reading(found, words),
        verdict=VERDICTS[found["recommendation"]["action"]],
    )  # fmt: skip


def heat(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Towers, each with its projections and its layers, the top one first, as they stand in the model.

    A cell's ``share`` is that of its weight in the gradient energy per entry of the whole model, ``strength`` the same
    against the strongest; ``alone`` and ``without`` are the trials of that one layer, None where there was none.
    """
    weights = found["predictor"]["weights"]
    strongest = max(weight["energy"] for weight in weights)
    towers = []
    for tower in dict.fromkeys(weight["tower"] for weight in weights):
        own = [weight for weight in weights if weight["tower"] == tower]
        cells = {(weight["layer"], weight["projection"]): weight["energy"] for weight in own}
        names = list(dict.fromkeys(weight["projection"] for weight in own))
        layers = [
            {
                "layer": layer,
                "cells": [_cell(cells.get((layer, name)), strongest) for name in names],
                "alone": _trial(found, "in", tower, layer),
                "without": _trial(found, "out", tower, layer),
            }
            for layer in sorted({weight["layer"] for weight in own}, reverse=True)
        ]
        towers.append({"tower": tower, "projections": [name.removesuffix(".weight") for name in names],
                       "layers": layers})  # fmt: skip
    return towers


def _cell(energy: float | None, strongest: float) -> dict[str, Any] | None:
    return None if energy is None else {"share": energy, "strength": round(energy / strongest, 3)}


def _trial(found: Mapping[str, Any], family: str, tower: str, layer: int) -> Mapping[str, Any] | None:
    for trial in found["trials"]:
        if (trial["family"], trial["tower"], trial["label"]) == (family, tower, str(layer)):
            return found["placements"][trial["placement"]]["difference"]
    return None


def trials(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every placement that was tried, the default and the predictor's first, the others as they were tried."""
    first = [
        {"family": "default", "tower": None, "label": None, **found["placements"][found["default"]]},
        {"family": "auto", "tower": None, "label": None, **found["auto"]},
    ]
    return first + [{**trial, **found["placements"][trial["placement"]]} for trial in found["trials"]]


def advice(found: Mapping[str, Any], words: Words) -> Sequence[str]:
    """What to do, what that bought and on which pictures, what it costs, and how far the predictor is to be trusted."""
    taken = found["recommendation"]
    said = [
        words(f"ablation.{taken['action']}", placement=taken["placement"]),
        _bought(found, words),
        words("ablation.cost", seconds=f"{taken['seconds']:.1f}", default=f"{taken['default_seconds']:.1f}",
              entries=numbers.count(words, taken["entries"])),
    ]  # fmt: skip
    for tower, one in found["predictor"]["correlation"].items():
        if one["accuracy"] is not None and tower != "all":
            said.append(
                words("ablation.predictor", tower=words(f"ablation.{tower}"), n=one["n"],
                      correlation=f"{one['accuracy']:+.2f}".replace("-", "−"))
            )  # fmt: skip
    return said


def _bought(found: Mapping[str, Any], words: Words) -> str:
    taken, worth = found["recommendation"], worth_of(found)
    anew = (taken.get("chosen_anew") or {}) if worth == "anew" else {}
    return words(
        {"unseen": "ablation.bought", "anew": "ablation.bought_anew", "same": "ablation.bought_same"}[worth],
        points=numbers.points(words, taken["difference"]["value"]),
        range=numbers.points_range(words, taken["difference"]["interval"]),
        same=numbers.count(words, anew.get(taken["placement"], 0)),
        n=numbers.count(words, sum(anew.values())),
    )


def reading(found: Mapping[str, Any], words: Words) -> dict[str, list[str]]:
    """How the map and the table are to be read: sentences under each."""
    under_map = [words("ablation.map_note")]
    seeds, without = len(found["task"]["seeds"]), without_text(found)
    if without:
        under_map.append(words("ablation.no_text", n=without, seeds=seeds))
    under_table = [
        words("ablation.rule", budget=numbers.count(words, found["budget"]), seeds=seeds),
        words("ablation.chooses_nothing" if worth_of(found) == "unseen" else "ablation.same_pictures"),
    ]
    if found.get("cross_validated"):
        under_table.append(words("ablation.auto_saw"))
    under_table += remarks_on_groups(found["task"], words)
    return {"map": under_map, "table": under_table}


def without_text(found: Mapping[str, Any]) -> int:
    """Seeds in which no weight of the text tower had a gradient; older files tell only of none in any seed."""
    text = [weight["energy"] for weight in found["predictor"]["weights"] if weight["tower"] == "text"]
    return found["predictor"].get("seeds_without_text", 0 if any(text) or not text else len(found["task"]["seeds"]))
