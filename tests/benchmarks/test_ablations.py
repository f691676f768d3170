"""The table of placements: every task a column, differences in points, a dash where nothing was tried."""

from benchmarks.ablations import table


def placed(value, low, high, accuracy=0.6):
    return {"accuracy": accuracy, "difference": {"value": value, "interval": [low, high]}}


def ablation(**others):
    return {
        "default": "vision:4-7",
        "trials": [
            {"family": "in", "tower": "vision", "label": "7", "placement": "vision:7"},
            *({"family": "top", "tower": "text", "label": "2", "placement": name} for name in others),
        ],
        "placements": {"vision:4-7": placed(0, 0, 0), "vision:7": placed(-0.031, -0.05, 0.01), **others},
        "auto": placed(0.012, -0.02, 0.04),
        "recommendation": {"action": "keep", "placement": "vision:4-7", **placed(0, 0, 0)},
        "predictor": {"correlation": {"all": {"accuracy": 0.123 if others else None}}},
    }


def test_every_placement_is_a_row_and_every_task_a_column():
    page = table({"one": ablation(), "two": ablation(**{"text:2-3": placed(0.02, 0.01, 0.03)})})
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "| upper half, accuracy | 60.0 | 60.0 |",
        "| in, vision 7 | -3.1 (-5.0 to +1.0) | -3.1 (-5.0 to +1.0) |",
        "| top, text 2 | – | +2.0 (+1.0 to +3.0) |",
        "| auto (one backward pass) | +1.2 (-2.0 to +4.0) | +1.2 (-2.0 to +4.0) |",
        "| recommended | keep: `vision:4-7`, +0.0 (+0.0 to +0.0) | keep: `vision:4-7`, +0.0 (+0.0 to +0.0) |",
        "| rank correlation of the predictor | – | 0.12 |",
    ]
