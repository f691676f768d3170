"""What each measure against too few labels is worth, at 1, 2 and 4 shots, on the two development tasks."""

from benchmarks.trials import Trials, main

TRIALS = Trials(
    name="few_label_safety",
    about=__doc__,
    rounds=(
        {
            "none": {},
            "L2 1 / shots": {"training": {"value_decay": 1.0}},
            "L2 10 / shots": {"training": {"value_decay": 10.0}},
            "agreement 1": {"safety": {"agreement": 1.0}},
            "average 0.95": {"safety": {"average": 0.95}},
            "stop at 0.01": {"safety": {"stop_loss": 0.01}},
            "alpha 0.5": {"safety": {"alpha": 0.5}},
            "no values (alpha 0)": {"safety": {"alpha": 0.0}},
        },
        {"alpha cross-validated": {"safety": {"alpha": "auto"}}},
    ),
    shots=(1, 2, 4),
    seeds=(0, 1),
    base={"training": {"steps": 100, "learning_rate": 3e-3, "value_decay": 0.0}, "safety": {"alpha": 1.0}},
)

if __name__ == "__main__":
    main(TRIALS)
