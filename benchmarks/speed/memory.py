"""Peak memory of a training above what the loaded model holds, every case in a process of its own.

Counted are the bytes that torch's allocator hands out and takes back (on CUDA its own peak), from before the training
is set up until its third update is done: the same to the byte whenever it is measured. The growth of the process's
resident memory stands beside it; that also holds what libraries keep for themselves.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks.speed.conditions import Conditions
from benchmarks.speed.record import Record

CASES = ("ours_all", "ours_upper", "lora", "shira")


def memory(conditions: Conditions) -> list[Record]:
    """Equal placement on all linear maps of the vision tower, and our upper quarter with its cache."""
    found = {name: _measured(name, conditions) for name in CASES}
    pairs = {"memory_lora": ("ours_all", "lora"), "memory_shira": ("ours_all", "shira"),
             "memory_upper": ("ours_upper", "lora")}  # fmt: skip
    return [
        Record(
            measure, conditions.model, f"batch {conditions.batch}", found[own]["peak"] / found[other]["peak"],
            found[own], found[other], {"counted": "allocator", "cached pictures": found[own]["pictures"]},
        )
        for measure, (own, other) in pairs.items()
    ]  # fmt: skip


def _measured(case: str, conditions: Conditions) -> dict[str, Any]:
    asked = {"case": case, "model": conditions.model, "device": conditions.device, "batch": conditions.batch,
             "quick": conditions.quick, "cache": str(conditions.cache),
             "input_size": conditions.input_size}  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.speed.memory_case", json.dumps(asked)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
