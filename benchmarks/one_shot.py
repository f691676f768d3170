"""One label a class, on the two development tasks: how much of the values is kept, and how deep they sit.

With one picture nothing can be left out, and values learn against class means that hold the answered picture. Nothing
here is far ahead: the default keeps the upper half, which trains fastest, and the smaller scale, which risks least.
"""

from benchmarks.trials import Settings, Trials, main
from kusabi.adapters.presets import spec_fields
from kusabi.spec_file import overlay

ALL = {"layers": "all"}
PRIOR, WHOLE = {"alpha": 0.2}, {"alpha": 1.0}


def _kind(preset: str) -> Settings:
    """The same question for a kind that is not the default."""
    return {
        f"{preset}, {name}": overlay(spec_fields(preset), fields)
        for name, fields in {
            "upper half, alpha n / (n + 4)": {"safety": PRIOR},
            "upper half, alpha 1": {"safety": WHOLE},
            "all layers, alpha 1": {"adapter": ALL, "safety": WHOLE},
        }.items()
    }


TRIALS = Trials(
    name="one_shot",
    about=__doc__ or "",
    rounds=(
        {
            "all layers, alpha 1": {"adapter": ALL, "safety": WHOLE},
            "upper half, alpha 1": {"safety": WHOLE},
            "all layers, twice the entries, alpha 1": {"adapter": {**ALL, "budget": None}, "safety": WHOLE},
            "all layers, alpha n / (n + 4)": {"adapter": ALL, "safety": PRIOR},
            "upper half, alpha n / (n + 4)": {"safety": PRIOR},
        },
        {name: fields for preset in ("lora", "sparse-adapter") for name, fields in _kind(preset).items()},
    ),
    shots=(1,),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}, "adapter": {"layers": "upper-half", "budget": 35_389}},
    lowest={"adapter": {"layers": "all"}},
)

if __name__ == "__main__":
    main(TRIALS)
