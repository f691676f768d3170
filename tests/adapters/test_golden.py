"""Files of schema 2, one of every kind, made once by the script in tests/golden/README.md: they must load forever."""

from pathlib import Path

import pytest
import torch

from kusabi.adapters.checkpoint import load_adapter, pack
from kusabi.adapters.kinds import KINDS
from kusabi.adapters.low_rank import LowRank

GOLDEN = Path(__file__).parents[1] / "golden"
ENTRIES = {
    "sparse_delta": [{"w": [14, 16, 29, 31, 62], "v": [10, 16, 20, 26]}],
    "low_rank": [{"w.A": [*range(16)], "w.B": [*range(16)], "w.g": [0, 1]}],
    "hybrid": [{"w": [3, 9, 63]}, {"w.A": [*range(8)], "w.B": [*range(8)]}],
    "bottleneck": [
        {"mlp.down": [0, 5, 11], "mlp.down_bias": [0, 1, 2], "mlp.up": [2, 7, 8, 10], "mlp.up_bias": [0, 1, 2, 3]}
    ],
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_golden_adapter_of_every_kind_loads_with_its_exact_entries(kind):
    folder = GOLDEN / f"{kind}-2"
    adapter = load_adapter(folder)
    assert [{name: indices.tolist() for name, indices, _ in part.parts()} for part in adapter.parts] == ENTRIES[kind]
    for part in adapter.parts:
        assert torch.equal(part.values.data, torch.arange(1, len(part) + 1) / 8)
    weights, card = pack(adapter)
    assert weights == (folder / "adapter.safetensors").read_bytes() and card == dict(adapter.card)


def test_there_is_one_of_every_kind():
    assert {part.kind for kind in ENTRIES for part in load_adapter(GOLDEN / f"{kind}-2").parts} == KINDS.keys()


def test_settings_come_back():
    part = load_adapter(GOLDEN / "low_rank-2").only(LowRank)
    assert (part.ranks, part.alphas, part.rank_stabilized) == ({"w": 2}, {"w": 4.0}, True)
    assert (part.dropout, part.shrinkage, part.shapes) == (0.25, 0.5, {"w": (8, 8)})
    form = load_adapter(GOLDEN / "bottleneck-2").parts[0].settings()
    assert (form["placement"], form["activation"], form["scale"], form["experts"]) == ("parallel", "gelu", 0.5, 2)
