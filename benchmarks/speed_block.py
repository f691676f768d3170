"""Speed and memory beside stock PEFT, as Markdown, from the result file of ``benchmarks.speed``."""

from collections.abc import Mapping
from typing import Any

from benchmarks.main_job_block import table
from benchmarks.speed.bounds import BOUNDS, SECONDS, SHARE
from benchmarks.words import texts


def speed_block(results: Mapping[str, Any] | None, language: str) -> str:
    """What was measured beside what we want at least, missed or not; one sentence where nothing was measured.

    Args:
        results: The content of ``speed.json``.
        language: ``en`` or ``ja``.
    """
    said = texts(language)
    if results is None:
        return said["absent"]
    rows = []
    records = [record for measure in results["measures"].values() for record in measure["records"]]
    for key, bound in BOUNDS.items():
        unit = {SHARE: "share", SECONDS: "seconds"}.get(bound.unit, "times")
        for record in records:
            if record["measure"] == key and record["value"] is not None:
                rows.append([
                    said[f"speed_{key}"],
                    said["on"].format(model=record["model"], case=_case(record, said)).strip(),
                    said[unit].format(value=f"{record['value']:.3g}"),
                    said[f"bound_{unit}"].format(value=f"{bound.must:g}"),
                    said["no" if bound.reached(record["value"]) == "missed" else "yes"],
                ])  # fmt: skip
    heads = [said[key] for key in ("measure", "model_and_case", "measured", "wanted", "holds")]
    facts = next(iter(results["measures"].values()))["environment"]
    caption = said["speed_caption"].format(
        torch=facts["torch"], peft=facts["peft"], processor=facts["processor"], cores=facts["cores"]
    )
    return f"{table(heads, rows)}\n\n{caption}"


def _case(record: Mapping[str, Any], said: Mapping[str, str]) -> str:
    """Classes and densities are numbers; what else a case says, its title says already."""
    number = record["case"].split()[0].rstrip(",")
    if "classes" in record["case"]:
        return said["classes_alone"].format(classes=number)
    return number if number.endswith("%") else ""
