"""``python -m benchmarks.speed`` measures everything that is asked and writes results after every measure.

``--measures`` takes some again and leaves the others' results in the file as they are.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import adaptation, curves, embedded, floors, loading, many, memory, steps, swap
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.environment import environment
from benchmarks.speed.record import Record
from benchmarks.speed.tables import page
from kusabi.files import write_bytes

RESULTS = Path("benchmarks/results/speed.json")
SCHEMA = 1


def large(conditions: Conditions) -> list[Record]:
    """ViT-L/14, the update alone: batch 8, bf16, three repeats; no bound was set for it."""
    sized = replace(conditions, model="vit-l-14", batch=8, precision="bfloat16", quick=True)
    return [
        replace(record, measure="step_large") for record in steps.equal_placement(sized, "last-6", ("step_entries",))
    ]


def embedded_steps(conditions: Conditions) -> list[Record]:
    """The embedded model's update at equal placement."""
    return steps.equal_placement(replace(conditions, model="mini", input_size=embedded.SIDE))


MEASURES: dict[str, Callable[[Conditions], list[Record]]] = {
    "swap": swap.swap,
    "loading": loading.loading,
    "stored": loading.stored,
    "embedded_in_process": embedded.in_process,
    "embedded_shell": embedded.from_the_shell,
    "embedded_steps": embedded_steps,
    "floors": floors.floors,
    "memory": memory.memory,
    "steps": steps.equal_placement,
    "ten_classes": adaptation.ten_classes,
    "automatic": adaptation.automatic,
    "hundred_classes": adaptation.hundred_classes,
    "confirmed": adaptation.confirmed,
    "methods": steps.every_method,
    "large": large,
    "curves": curves.curves,
    "many": many.many,
}
SLOW = ("methods", "large", "curves", "confirmed", "floors", "many")


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write."""
    asked = arguments(words)
    warnings.simplefilter("ignore", FutureWarning)  # of transformers, about how peft calls it
    if asked.threads:
        torch.set_num_threads(asked.threads)
    conditions = Conditions(asked.model, asked.device, asked.quick, asked.cache, batch=8 if asked.quick else 16)
    kept = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    found: dict[str, Any] = kept.get("measures", {}) if kept.get("schema") == SCHEMA else {}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for name in asked.measures:
        began = time.perf_counter()
        records = MEASURES[name](conditions)
        taken = time.perf_counter() - began
        found[name] = {"quick": asked.quick, "environment": environment(asked.device),
                       "records": [record.to_json() for record in records]}  # fmt: skip
        results = {"schema": SCHEMA, "measures": {key: found[key] for key in MEASURES if key in found}}
        write_bytes(asked.out, (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
        write_bytes(asked.out.with_suffix(".md"), page(results).encode())
        print(f"{name} ({taken:.0f} s): " + "; ".join(f"{r.case}: {_shown(r)}" for r in records), flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--measures", type=_names, help=f"comma-separated, of {', '.join(MEASURES)}; all when absent")
    parser.add_argument("--quick", action="store_true", help="fewer pictures and repeats; needs an --out of its own")
    parser.add_argument("--model", default="vit-b-16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of both sides; torch's own choice when absent")
    parser.add_argument("--cache", type=Path, default=Conditions.cache)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(words)
    if asked.quick and asked.out == RESULTS:
        parser.error("a quick trial is no result: give another --out")
    asked.measures = asked.measures or [name for name in MEASURES if not (asked.quick and name in SLOW)]
    return asked


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not known; choose from {', '.join(MEASURES)}")
    return names


def _shown(record: Record) -> str:
    return record.note or (f"{record.value:.3g}" if record.value is not None else "measured")


if __name__ == "__main__":
    main()
