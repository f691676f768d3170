"""Where a sparse adapter sits, on the two development tasks: which layers, which projections, what budget.

The first setting was the default when this was measured, at step size 0.002; ``benchmarks/rates.py`` and
``benchmarks/depth.py`` have moved both since.
"""

from benchmarks.trials import Trials, main

BUDGET = 35_389  # entries: what the upper half holds at its density

TRIALS = Trials(
    name="placements",
    about=__doc__ or "",
    rounds=(
        {
            "upper half": {"adapter": {"layers": "upper-half"}},
            "all layers": {"adapter": {"layers": "all"}},
            "all layers, budget of the upper half": {"adapter": {"layers": "all", "budget": BUDGET}},
            "upper three quarters": {"adapter": {"layers": "last-6", "budget": BUDGET}},
            "upper quarter": {"adapter": {"layers": "last-2", "budget": BUDGET}},
            "lower half": {"adapter": {"layers": "0-3", "budget": BUDGET}},
            "all layers, attention": {"adapter": {"layers": "all", "projections": ["attention.*"], "budget": BUDGET}},
            "all layers, MLP": {"adapter": {"layers": "all", "projections": ["mlp.*"], "budget": BUDGET}},
        },
    ),
    shots=(4, 16),
    seeds=(0, 1, 2),
    base={"training": {"steps": 100}},
    lowest={"adapter": {"layers": "all"}},
)

if __name__ == "__main__":
    main(TRIALS)
