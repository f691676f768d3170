"""One label a class, on the two development tasks: what values learn against, how much of them is kept, and how deep.

With one picture nothing can be left out. Against class means values learned from a mean that is the answered picture
itself (rows of class means, measured at commit c0a840b, before the names took their place); the names have not seen it.
"""

from benchmarks.trials import Trials, main

ALL = {"layers": "all"}
PRIOR, WHOLE = {"alpha": 0.2}, {"alpha": 1.0}


TRIALS = Trials(
    name="one_shot",
    about=__doc__ or "",
    rounds=(
        {
            "all layers": {"adapter": ALL},
            "upper half": {},
            "upper half, alpha 1": {"safety": WHOLE},
            "upper half, alpha 0.2": {"safety": PRIOR},
        },
    ),
    shots=(1,),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}, "adapter": {"layers": "upper-half", "budget": 35_389}},
    lowest={"adapter": {"layers": "all"}},
)

if __name__ == "__main__":
    main(TRIALS)
