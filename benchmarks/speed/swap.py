"""Put an adapter of 0.1 % density on and take it off, beside PEFT's merge and unmerge of LoRA on the same weights."""

from dataclasses import asdict
from typing import Any

from benchmarks.speed.adapters import ours, peft_model
from benchmarks.speed.clock import alternated
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.record import Record
from kusabi.adapters.attach import attached

DENSITY = 0.001
REPEATS = 20


def swap(conditions: Conditions) -> list[Record]:
    """All linear maps of both towers."""
    backbone = conditions.load()
    adapter = ours(backbone, DENSITY)
    model: Any = peft_model("lora", backbone)

    def on_and_off() -> None:
        with attached(backbone.module, *adapter.parts):
            pass

    def merged_and_unmerged() -> None:
        model.merge_adapter()
        model.unmerge_adapter()

    repeats = REPEATS // 2 if conditions.quick else REPEATS
    found = alternated({"ours": on_and_off, "lora": merged_and_unmerged}, conditions.device, repeats=repeats, warm=2)
    entries = sum(map(len, adapter.parts))
    return [
        Record(
            "swap", conditions.model, f"{DENSITY:.1%} of {len(adapter.delta.names)} weights",
            found["lora"].median / found["ours"].median, asdict(found["ours"]), asdict(found["lora"]),
            {"entries": entries, "nanoseconds an entry": 1e9 * found["ours"].median / entries},
        )
    ]  # fmt: skip
