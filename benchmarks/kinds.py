"""Every kind of adapter at one budget and its default rate, on the two development tasks.

Sparse deltas, LoRA and SparseAdapter were tried at two rates each; defaults are the better ones.
"""

from benchmarks.trials import Trials, main
from kusabi.adapters.presets import spec_fields
from kusabi.spec_file import overlay

RATE = {"training": {"learning_rate": 2e-3}}  # the default of sparse deltas before this table
PRESETS = ("lora", "sora", "supra", "rosa", "houlsby", "sparse-adapter", "mosa")

TRIALS = Trials(
    name="kinds",
    about=__doc__ or "",
    rounds=(
        {
            "sparse delta, rate 0.002": RATE,
            "sparse delta, rows, rate 0.002": overlay({"adapter": {"granularity": "row"}}, RATE),
            **{preset: spec_fields(preset) for preset in PRESETS},
            **{
                f"{preset}, rate 0.001": overlay(spec_fields(preset), {"training": {"learning_rate": 1e-3}})
                for preset in ("lora", "sparse-adapter")
            },
            "sparse delta (default)": {},
        },
    ),
    shots=(4, 16),
    seeds=(0, 1),
    base={"training": {"steps": 100}},
)

if __name__ == "__main__":
    main(TRIALS)
