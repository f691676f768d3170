"""What the embedded backbone names without any example, as Markdown, from the figures of its card."""

from collections.abc import Mapping
from typing import Any

from benchmarks.main_job_block import table
from benchmarks.words import texts

SIDE = 112  # pixels; the card has more
VENDORS = ("openmoji", "hugeicons")


def backbone_block(results: Mapping[str, Any] | None, language: str) -> str:
    """Size and zero-shot figures; one sentence where nothing was measured.

    Args:
        results: The content of the backbone's ``results.json``.
        language: ``en`` or ``ja``.
    """
    said = texts(language)
    if results is None:
        return said["absent"]
    size, rows = results["model"], []
    for name in VENDORS:
        for pool in ("shared", "all"):
            entry = results["naming"][name][f"{pool} names"]
            rows.append([
                said["vendor"].format(name=name, pictures=entry["pictures"]),
                said[pool].format(names=entry["names"]),
                _tops(entry[f"own text, {SIDE} px"]),
            ])  # fmt: skip
    for name, entry in results["zero_shot"].items():
        rows.append([
            said["vendor"].format(name=name, pictures=entry["pictures"]),
            said["classes"].format(names=entry["classes"]),
            _tops(entry["own text"]),
        ])  # fmt: skip
    lead = said["model"].format(parameters=f"{size['parameters']:.1f}", megabytes=f"{size['megabytes']:.1f}", size=SIDE)
    return f"{lead}\n\n{table([said['task'], said['names'], 'top-1 / top-5'], rows)}"


def _tops(entry: Mapping[str, float]) -> str:
    return f"{entry['top1']:.1f} / {entry['top5']:.1f} %"
