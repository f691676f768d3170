"""Published sparse methods as settings of the one engine.

A preset says where trained entries start (rule, density) and how they move, and nothing about learning rates or steps,
which belong to the training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from kusabi.adapters.kind_presets import KIND_PRESETS
from kusabi.adapters.moves import STILL, Moves
from kusabi.errors import SpecError


@dataclass(frozen=True)
class Preset:
    """A method: where its entries start and how they move.

    Attributes:
        rule: What entries are first ranked by: a support rule, or ``change``, the distance that a dense training moved
            them, over all targets at once.
        density: Trained share of the targeted weights.
        granularity: How the first entries of a weight lie together, see ``granularity.choose``.
        moves: How the support moves.
    """

    rule: Literal["random", "magnitude", "gradient", "snip", "change"]
    density: float
    granularity: str = "entry"
    moves: Moves = STILL


SHIRA_RANDOM = Preset("random", 0.01)
"""SHiRA-Rand (arXiv 2406.13175, section 3): 1-2 % of every weight, drawn once."""

SHIRA_MAGNITUDE = Preset("magnitude", 0.01)
"""SHiRA-WM (arXiv 2406.13175, section 3): the largest |W| of every weight."""

SHIRA_GRADIENT = Preset("gradient", 0.01)
"""SHiRA-Grad (arXiv 2406.13175, section 3): the largest |g| of every weight on calibration data."""

SHIRA_SNIP = Preset("snip", 0.01)
"""SHiRA-SNIP (arXiv 2406.13175, section 3): the largest |g W| of every weight on calibration data."""

SUPER_TUNING = Preset("magnitude", 0.01)
"""Super-Tuning (arXiv 2607.09287; PEFT's ``supertuning``, sparsity 0.99): the largest |W|, no data needed."""

SAFT = Preset("gradient", 0.001)
"""SAFT (arXiv 2407.03036, section 3): the largest |g|, 0.1 %; ranked within each weight here."""

GPS = Preset("gradient", 0.0036, granularity="output")
"""GPS (arXiv 2312.10136): for every output neuron the inputs with the largest |g|, 0.36 %. The gradients are those of
the training loss here, of a supervised contrastive loss without a head there."""

SPIEL = Preset(
    "random", 0.01,
    moves=Moves(every=20, phase=5, share=0.2, first_share=1.0, rho=0.0, window=6, seeding="mean"),
)  # fmt: skip
"""SpIEL-AG (arXiv 2401.16405, section 3.2; AlanAnsell/peft, ``tuners/sft``), following the code: a random support is
replaced whole after 5 updates; then, 20 updates apart, the entries with the smallest |delta| give way to the largest
mean gradients. Candidates are the largest gradients of the window's first backward, as many as a weight has entries;
the first window has 5 updates, all later ones 6, for the code begins one early. Two differences: gradients are summed
over the micro-batches of an update before they count, and epsilon stands where torch's AdamW has it."""

SO = Preset("random", 0.00005, moves=Moves(every=5, rho=1.0, union=True))
"""SO as its repository runs it (ICCV 2025, arXiv 2504.12436; nairouz/SO, ``s=0.99995 t=5``). Every T updates
M = density x size positions of each weight are drawn; the M with the largest |m| are kept. Each update steps the union
of both, corrected for bias by the global step, and prunes the moments to M afterwards (the paper's text: before). Every
entry ever touched keeps its value: the delta grows with each drawing and has no budget."""

SO_PAPER = Preset("random", 0.0005, moves=Moves(every=10, rho=1.0, union=True))
"""SO with the kappa = 0.05 % and T = 10 of its paper (arXiv 2504.12436, section 4)."""

SO_BOUNDED = Preset(
    "random", 0.001, moves=Moves(every=10, share=0.5, rho=1.0, weakest="momentum", seeding="zero")
)  # fmt: skip
"""SO under a hard budget, ours: of K = 2 M entries the half with the smaller |m| leaves every T updates, its originals
are restored, and as many random ones enter, each corrected by its own age; the share falls to zero."""

LT_SFT = Preset("change", 0.01)
"""LT-SFT (arXiv 2110.07560, section 3.1; cambridgeltl/composable-sft): train densely, keep the entries that moved
furthest over all weights (``most_changed``), go back to the pretrained weights and train those with a fresh optimizer.
One round; ties never exceed the budget, as they may in the code."""

DROP_AND_GROW = Preset("gradient", 0.001, moves=Moves(every=10, share=0.2, rho=0.5, window=5))
"""Ours: a hard budget, half of the entering entries random and half by gradient."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "shira-random": SHIRA_RANDOM,
        "shira-magnitude": SHIRA_MAGNITUDE,
        "shira-gradient": SHIRA_GRADIENT,
        "shira-snip": SHIRA_SNIP,
        "super-tuning": SUPER_TUNING,
        "saft": SAFT,
        "gps": GPS,
        "spiel": SPIEL,
        "so": SO,
        "so-paper": SO_PAPER,
        "so-bounded": SO_BOUNDED,
        "lt-sft": LT_SFT,
        "drop-and-grow": DROP_AND_GROW,
    }
)


def spec_fields(name: str) -> dict[str, dict[str, Any]]:
    """A preset as the fields of a spec, to be laid under whatever else is asked.

    Raises:
        SpecError: If there is no such preset.
    """
    if name in KIND_PRESETS:
        return {part: dict(fields) for part, fields in KIND_PRESETS[name].items()}
    if name not in PRESETS:
        raise SpecError(f"--preset {name}: not known; choose from {', '.join([*PRESETS, *KIND_PRESETS])}")
    preset = PRESETS[name]
    moves = {"random" if key == "rho" else key: value for key, value in asdict(preset.moves).items()}
    return {
        "adapter": {"support_rule": preset.rule, "density": preset.density, "granularity": preset.granularity},
        "moves": {f"move_{key}": value for key, value in moves.items()},
    }
