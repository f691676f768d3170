"""Every kind of adapter at one budget and its default rate, on the two development tasks."""

from benchmarks.trials import Trials, main
from kusabi.adapters.presets import spec_fields

PRESETS = ("lora", "sora", "supra", "houlsby", "sparse-adapter", "mosa")

TRIALS = Trials(
    name="kinds",
    about=__doc__,
    rounds=(
        {
            "sparse delta (default)": {},
            "sparse delta, rows": {"adapter": {"granularity": "row"}},
            **{preset: spec_fields(preset) for preset in PRESETS},
        },
    ),
    shots=(4, 16),
    seeds=(0, 1),
    base={"training": {"steps": 100}},
)

if __name__ == "__main__":
    main(TRIALS)
