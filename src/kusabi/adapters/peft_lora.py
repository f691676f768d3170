"""A low-rank adapter as a folder that stock PEFT loads as LoRA, and other servers of LoRA with it.

Requirements this file exists for:
- the factors go over bit by bit, with the scale that PEFT computes from ``r`` and ``lora_alpha`` in the same way;
- gates are folded in, since LoRA has none, and ranks and alphas may differ between layers: their patterns name layers
  from end to end, for PEFT matches names by their endings.

``peft_import.import_lora`` reads such folders back.
"""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.exported_head import READING, write_head, write_json
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.part import check_fits
from kusabi.adapters.peft_loading import base_fields, loading
from kusabi.adapters.peft_names import CONFIG, PREFIX, README, WEIGHTS
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError, listed


def export_lora(folder: Path, module: nn.Module, adapter: Adapter, prototypes: Prototypes) -> None:
    """Write a low-rank adapter as a LORA folder for ``PeftModel.from_pretrained``, with its classifier beside it.

    Args:
        folder: Where to; must be new or empty.
        module: The backbone's module, as transformers loads it.
        adapter: What to write; gates are folded in first.
        prototypes: Its classifier, around the text embeddings of the adapted model.

    Raises:
        AdapterError: If it is of another kind, PEFT could not express it (naming all weights that stand in the way), or
            something is in the way on the disk. Nothing is left behind then.
    """
    part, card = adapter.only(LowRank), adapter.card
    plain = part if part.shrinkage is None else part.pruned()
    tensors = lora_tensors(module, plain)
    paths = sorted(weight.removesuffix(".weight") for weight in plain.weights)
    with whole_folder(folder) as aside:
        (aside / WEIGHTS).write_bytes(dump_tensors(tensors, {"format": "pt"}))
        write_json(aside / CONFIG, base_fields(module, card["backbone"], paths) | _own_fields(plain))
        write_head(aside, prototypes, card)
        (aside / README).write_bytes(_readme(module, card["backbone"]["source"], len(paths)).encode())


def lora_tensors(module: nn.Module, part: LowRank) -> dict[str, Tensor]:
    """PEFT's tensors: ``base_model.model.<layer>.lora_A.weight`` ``(r, in)``, ``...lora_B.weight`` ``(out, r)``, fp32.

    Raises:
        AdapterError: Naming every weight that is not of an ``nn.Linear`` of its own, or has values that are not finite.
    """
    check_fits(part, module)
    linears = plain_linears(module)
    tensors, wrong = {}, []
    for weight in part.weights:
        a, b, _ = part.factors(weight)
        if weight not in linears:
            wrong.append(f"{weight} is not the weight of an nn.Linear of its own")
        if not bool(a.isfinite().all() & b.isfinite().all()):
            wrong.append(f"{weight} has values that are not finite")
        path = PREFIX + weight.removesuffix(".weight")
        tensors |= {f"{path}.lora_A.weight": a.cpu().clone(), f"{path}.lora_B.weight": b.cpu().clone()}
    if wrong:
        raise AdapterError(f"PEFT's LORA cannot hold this adapter: {listed(wrong, '; ')}; export it as merged instead")
    return tensors


def _own_fields(part: LowRank) -> dict[str, Any]:
    first = max(part.weights, key=lambda weight: part.ranks[weight])  # some servers make room for this r everywhere
    return {
        "bias": "none",
        "init_lora_weights": True,
        "lora_alpha": _plain(part.alphas[first]),
        "lora_dropout": part.dropout,
        "peft_type": "LORA",
        "r": part.ranks[first],
        "use_rslora": part.rank_stabilized,
        "alpha_pattern": {_only(w): _plain(a) for w, a in part.alphas.items() if a != part.alphas[first]},
        "rank_pattern": {_only(w): r for w, r in part.ranks.items() if r != part.ranks[first]},
    }


def _only(weight: str) -> str:
    return f"^{re.escape(weight.removesuffix('.weight'))}"


def _plain(alpha: float) -> int | float:
    """As PEFT writes it itself: its type is a whole number, others work too."""
    return int(alpha) if alpha.is_integer() else alpha


def _readme(module: nn.Module, source: str, layers: int) -> str:
    return f"""\
---
library_name: peft
---

# A low-rank adapter of {source}

PEFT reads this folder as LoRA, on {layers} layers:

{loading(module, source)}
PEFT ignores the classifier. These five lines run it, and give the logits of the adapter:

{READING}"""
