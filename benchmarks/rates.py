"""The peak step size of a sparse delta's values, and whether it is risen to, on the two development tasks.

With 40 labelled pictures (fashion, 4) small steps do as well and risk less; with 100 and more larger ones are level or
ahead. Rising to them costs nothing where they are safe. ``benchmarks/depth.py`` shows where they are not.
"""

from benchmarks.trials import Trials, main


def _rate(rate: float, warm: float) -> dict[str, dict[str, float]]:
    return {"training": {"learning_rate": rate, "warmup_ratio": warm}}


TRIALS = Trials(
    name="rates",
    about=__doc__ or "",
    rounds=(
        {
            "default": {},
            **{
                f"{rate:g}, {'risen to' if warm else 'at once'}": _rate(rate, warm)
                for rate in (2e-3, 4e-3)
                for warm in (0.1, 0.0)
            },
        },
    ),
    shots=(4, 16),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}, "adapter": {"layers": "upper-half"}},
)

if __name__ == "__main__":
    main(TRIALS)
