"""One label a class, on the two development tasks: how much of the values is kept, and how deep they sit.

With one picture nothing can be left out, and values learn against class means that hold the answered picture.
"""

from benchmarks.trials import Settings, Trials, main
from kusabi.adapters.presets import spec_fields
from kusabi.spec_file import overlay

OTHER_KINDS = ("lora", "sparse-adapter")


def _kind(preset: str) -> Settings:
    """The same question for a kind that is not the default."""
    return {
        f"{preset}, {name}": overlay(spec_fields(preset), fields)
        for name, fields in {
            "upper half, alpha n / (n + 4)": {"safety": {"alpha": 0.2}},
            "upper half, alpha 1": {"safety": {"alpha": 1.0}},
            "all layers, alpha 1": {"adapter": {"layers": "all"}, "safety": {"alpha": 1.0}},
        }.items()
    }


TRIALS = Trials(
    name="one_shot",
    about=__doc__ or "",
    rounds=(
        {
            "upper half, alpha n / (n + 4)": {"safety": {"alpha": 0.2}},
            "upper half, alpha 1": {"safety": {"alpha": 1.0}},
            "all layers, alpha n / (n + 4)": {"adapter": {"layers": "all"}, "safety": {"alpha": 0.2}},
            "all layers, alpha 0.5": {"adapter": {"layers": "all"}, "safety": {"alpha": 0.5}},
            "all layers, alpha 1": {"adapter": {"layers": "all"}, "safety": {"alpha": 1.0}},
            "lower half, alpha 1": {"adapter": {"layers": "0-3"}, "safety": {"alpha": 1.0}},
        },
        {name: fields for preset in OTHER_KINDS for name, fields in _kind(preset).items()},
    ),
    shots=(1,),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}, "adapter": {"layers": "upper-half"}},
    lowest={"adapter": {"layers": "all"}},
)

if __name__ == "__main__":
    main(TRIALS)
