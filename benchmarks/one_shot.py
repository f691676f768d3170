"""One label a class, on the two development tasks: how much of the values is kept, and how deep they sit.

With one picture nothing can be left out, and values learn against class means that hold the answered picture. Nothing
here is far ahead: the default keeps the upper half, which trains fastest, and the smaller scale, which risks least.
"""

from benchmarks.trials import Trials, main

ALL = {"layers": "all"}
PRIOR, WHOLE = {"alpha": 0.2}, {"alpha": 1.0}


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
    ),
    shots=(1,),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}, "adapter": {"layers": "upper-half", "budget": 35_389}},
    lowest={"adapter": {"layers": "all"}},
)

if __name__ == "__main__":
    main(TRIALS)
