"""Every kind of adapter at one budget and its default rate, on the two development tasks.

Sparse deltas, LoRA and SparseAdapter were tried at two rates each. That of the sparse delta stays below
the better one here: a fall on textile, a headline task, made us look again, and on parts of these tasks with two or
three classes, in single-seed trials that are not committed, the larger one was more often behind than ahead. What the
default was then: since, step sizes grow with the pictures (``benchmarks/rates.py``).
"""

from benchmarks.trials import Trials, main
from kusabi.adapters.presets import spec_fields
from kusabi.spec_file import overlay

PRESETS = ("lora", "sora", "supra", "rosa", "houlsby", "sparse-adapter", "mosa")

TRIALS = Trials(
    name="kinds",
    about=__doc__ or "",
    rounds=(
        {
            "sparse delta (default)": {},
            "sparse delta, rows": {"adapter": {"granularity": "row"}},
            **{preset: spec_fields(preset) for preset in PRESETS},
            **{
                f"{preset}, rate 0.001": overlay(spec_fields(preset), {"training": {"learning_rate": 1e-3}})
                for preset in ("lora", "sparse-adapter")
            },
            "sparse delta, rate 0.004": {"training": {"learning_rate": 4e-3}},
        },
    ),
    shots=(4, 16),
    seeds=(0, 1),
    base={"training": {"steps": 100}},
)

if __name__ == "__main__":
    main(TRIALS)
