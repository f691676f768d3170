"""Published methods of the other kinds, as fields of a spec; budget, rates and steps are the training's.

Bottlenecks differ in where they sit, how they are joined, and what survives at birth.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Mapping[str, Any]]


def _bottleneck(**form: Any) -> Fields:
    return {"adapter": {"kind": "bottleneck"}, "bottleneck": form}


def _low_rank(kind: str = "low_rank", **settings: Any) -> Fields:
    return {"adapter": {"kind": kind}, "low_rank": settings}


KIND_PRESETS: Mapping[str, Fields] = MappingProxyType(
    {
        # Hu et al., arXiv 2106.09685; Kalajdzievski, arXiv 2312.03732.
        "lora": _low_rank(),
        "rslora": _low_rank(rank_stabilized=True),
        # Zanella and Ben Ayed, arXiv 2405.18541, section 4: both towers, all layers, queries, keys and values.
        "clip-lora": {
            "adapter": {
                "kind": "low_rank", "tower": "both", "layers": "all",
                "projections": ("*q_proj*", "*k_proj*", "*v_proj*", "*query*", "*key*", "*value*", "*in_proj_weight"),
            },
            "low_rank": {"rank": 2, "lora_alpha": 1.0, "rank_stabilized": True, "lora_dropout": 0.25},
        },
        # Ding et al., arXiv 2311.11696: gates that close.
        "sora": _low_rank(shrinkage=10.0),
        # The same, section 3.3 and the authors' script: seven strengths from none on, each going on from the last.
        "sora-schedule": _low_rank(shrinkage=0.0, shrinkage_last=20.0),
        # Nikdan et al., arXiv 2401.04679, section 4: 64 updates of warm-up, squared gradients, then both anew.
        "rosa": {"adapter": {"kind": "hybrid", "support_rule": "warm_up"}, "low_rank": {}},
        # Super-Tuning with a low-rank part, arXiv 2607.09287: the largest weights.
        "supra": {"adapter": {"kind": "hybrid", "support_rule": "magnitude"}, "low_rank": {}},
        # Houlsby et al., arXiv 1902.00751, section 2.1: after both sublayers.
        "houlsby": _bottleneck(activation="gelu", prune_rule="random"),
        # Pfeiffer et al., arXiv 2005.00247: after the MLP alone.
        "pfeiffer": _bottleneck(where="mlp", prune_rule="random"),
        # Chen et al., arXiv 2205.13535: beside the MLP, weakened.
        "adaptformer": _bottleneck(
            where="mlp", form="parallel", bottleneck_scale=0.1, down_init="kaiming", prune_rule="random"
        ),
        # He et al., arXiv 2110.04366, section 4: beside the MLP, strengthened.
        "scaled-parallel": _bottleneck(
            where="mlp", form="parallel", bottleneck_scale=4.0, down_init="kaiming", prune_rule="random"
        ),
        # He et al., arXiv 2210.04284: Houlsby's places, SNIP; at one budget a density is a width: half, and a quarter.
        "sparse-adapter": _bottleneck(prune_rule="snip", widen=2),
        "large-sparse": _bottleneck(prune_rule="snip", widen=4),
        # Zhang et al., arXiv 2312.02923, on AdaptFormer: four experts.
        "mosa": _bottleneck(
            where="mlp", form="parallel", activation="gelu", bottleneck_scale=0.1, bottleneck_dropout=0.1, experts=4,
            down_init="kaiming", prune_rule="random",
        ),
    }
)  # fmt: skip
