"""One case of ``memory.py``: ``python -m benchmarks.speed.memory_case JSON`` prints its peaks in bytes as JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.conditions import Conditions, upper_quarter
from benchmarks.speed.ours import encoded, setting_of, spec_of, updates, without_cache
from benchmarks.speed.peers import RANK, linears
from benchmarks.speed.steps import CLASSES, decoded, ready
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.prefix import enter
from kusabi.recipes.environment import peak_memory

UPDATES = 3


def main() -> None:
    """Measure and print."""
    asked = json.loads(sys.argv[1])
    case = asked.pop("case")
    conditions = Conditions(**{**asked, "cache": Path(asked["cache"])})
    backbone = conditions.load()
    for parameter in backbone.module.parameters():
        parameter.sum()  # every page is there before anything is counted
    pictures, train = (
        ours(case, backbone, conditions) if case.startswith("ours") else (0, peer(case, backbone, conditions))
    )
    before = peak_memory("cpu")
    peak = _peak(train, conditions.device)
    print(json.dumps({"peak": peak, "resident": peak_memory("cpu") - before, "pictures": pictures}))


def ours(case: str, backbone: Backbone, conditions: Conditions) -> tuple[int, Callable[[], Any]]:
    """A training of ours; the cache of the upper quarter is counted, since it is filled within."""
    layers = "all" if case == "ours_all" else f"last-{upper_quarter(len(backbone.blocks['vision']))}"
    adapter: dict[str, Any] = (
        {"budget": RANK * _sides(backbone)} if case == "ours_all" else {}
    )  # as many numbers as LoRA's, there
    spec = spec_of(layers, steps=UPDATES, batch=conditions.batch, support_rule="random", **adapter)
    if case == "ours_all":
        setting = setting_of(backbone, CLASSES, spec)
        views, _ = encoded(setting, conditions.batch)
        shown, _ = decoded(backbone, conditions)
        uncached = without_cache(views, shown, lambda batch: enter(backbone, batch.to(backbone.device), 0))
        return 0, lambda: updates(setting, uncached, None, {})

    def whole() -> None:
        setting = setting_of(backbone, CLASSES, spec)
        updates(setting, encoded(setting, conditions.pictures)[0], None, {})

    return conditions.pictures, whole


def peer(case: str, backbone: Backbone, conditions: Conditions) -> Callable[[], Any]:
    """A training of PEFT's; its copy of the model is made before, and counted nowhere."""
    shown, labels = decoded(backbone, conditions)
    other = ready(case, backbone, conditions, shown, labels, "all")

    def train() -> None:
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            for _ in range(UPDATES):
                other.step()

    return train


def _sides(backbone: Backbone) -> int:
    """Rows and columns of all linear maps of the vision tower: what one rank of LoRA costs."""
    weights = dict(backbone.module.named_parameters())
    return sum(sum(weights[f"{name}.weight"].shape) for name in linears(backbone))


def _peak(train: Callable[[], Any], device: str) -> int:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        train()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        train()
    held = highest = 0
    kineto: Any = seen.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


if __name__ == "__main__":
    main()
