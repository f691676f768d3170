"""What each measure against too few labels is worth, at 1, 2 and 4 shots, on the two development tasks.

The default trains against cross-fitted classifiers; every row changes one setting of it. It is that of the day: since,
one label a class has rules of its own (``benchmarks/one_shot.py``).
"""

from benchmarks.trials import Trials, main

TRIALS = Trials(
    name="few_label_safety",
    about=__doc__ or "",
    rounds=(
        {
            "default": {},
            "one classifier, whole values": {"safety": {"cross_fit": 0, "alpha": 1.0}},
            "one classifier, alpha n / (n + 4)": {"safety": {"cross_fit": 0}},
            "alpha 0.5": {"safety": {"alpha": 0.5}},
            "alpha 1": {"safety": {"alpha": 1.0}},
            "no values (alpha 0)": {"safety": {"alpha": 0.0}},
            "agreement 1": {"safety": {"agreement": 1.0}},
            "L2 1 / shots": {"training": {"value_decay": 1.0}},
            "average 0.95": {"safety": {"average": 0.95}},
            "stop at 0.1": {"safety": {"stop_loss": 0.1}},
        },
        {"alpha cross-validated": {"safety": {"alpha": "auto"}}},
    ),
    shots=(1, 2, 4),
    seeds=(0, 1),
    base={"training": {"steps": 100}},
)

if __name__ == "__main__":
    main(TRIALS)
