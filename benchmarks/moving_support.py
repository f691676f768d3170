"""Does a bounded budget keep the gain of a moving support? The first experiment, on the two development tasks.

From a centre (K = 0.1 % of the targeted weights, half of the entering entries random, a move every 10 updates) one
factor at a time, then a grid around the best; static supports and the unbounded SO stand beside them.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.trials import Settings, Trials, main

STEPS, SHARE, WINDOW = 100, 0.3, 5
"""Updates; share that is replaced (RigL, arXiv 1911.11134); updates whose gradients say what enters."""


def moving(percent: float, rho: float, every: int) -> dict[str, Any]:
    """A bounded moving support, as fields of a spec."""
    return {
        "adapter": {"density": percent / 100, "support_rule": "gradient" if rho < 1 else "random"},
        "moves": {
            "move_every": every, "move_share": SHARE, "move_random": rho, "move_window": min(WINDOW, every),
        },
    }  # fmt: skip


def static(percent: float, rule: str) -> dict[str, Any]:
    """A support that stays."""
    return {"adapter": {"density": percent / 100, "support_rule": rule}}


def _moving(settings: Sequence[tuple[float, float, int]]) -> Settings:
    return {f"moving K={k}% rho={rho} T={every}": moving(k, rho, every) for k, rho, every in settings}


TRIALS = Trials(
    name="moving_support",
    about=__doc__ or "",
    rounds=(
        {
            **_moving([(0.1, 0.5, 10), (0.01, 0.5, 10), (1, 0.5, 10)]),
            **_moving([(0.1, 0, 10), (0.1, 1, 10), (0.1, 0.5, 5), (0.1, 0.5, 20)]),
            "static gradient K=0.1%": static(0.1, "gradient"),
            "static gradient K=1%": static(1, "gradient"),
            "SO, unbounded, 0.05% T=10": {
                "adapter": {"density": 0.0005, "support_rule": "random"},
                "moves": {"move_every": 10, "move_union": True},
            },
        },
        _moving([(1, rho, every) for every in (5, 10) for rho in (0, 0.5, 1)]),
    ),
    shots=(1, 4, 16),
    seeds=(0, 1, 2),
    base={"training": {"steps": STEPS}},
)

if __name__ == "__main__":
    main(TRIALS)
