"""A sparse delta as a folder that stock PEFT loads: PEFT's own SHiRA (Bhardwaj et al., arXiv 2406.13175).

Requirements this file exists for:
- unmodified PEFT computes bitwise what the attached adapter computes, and nothing of PEFT is needed to write it;
- PEFT gives each layer exactly ``r * (rows + columns)`` entries, with one ``r`` for all layers: the rest is filled with
  entries of value ``-0.0``, since ``x + -0.0`` is ``x`` bit for bit, also where ``x`` is ``-0.0``;
- where ``mask_type`` is "random", PEFT draws a support of its own, and a reader that skips the stored indices is
  silently wrong; under any other word it has no indices at all, and fails;
- layers are named by a pattern from end to end: PEFT matches the names of a list by their endings, and ``0.fc`` would
  adapt ``other.0.fc`` too.

Importing this file also makes PEFT know Kusabi's own kind of adapter, where PEFT is installed: see ``peft_tuner.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.exported_head import READING, write_head, write_json
from kusabi.adapters.part import check_fits
from kusabi.adapters.peft_loading import base_fields, loading
from kusabi.adapters.peft_names import CONFIG, PREFIX, README, WEIGHTS
from kusabi.adapters.peft_plugin import kusabi_config, plug_in
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError, listed

VALUES, INDICES = "shira_weight", "shira_indices"


def export_shira(folder: Path, module: nn.Module, adapter: Adapter, prototypes: Prototypes) -> None:
    """Write an adapter as a SHIRA folder for ``PeftModel.from_pretrained``, with its classifier beside it.

    Args:
        folder: Where to; must be new or empty.
        module: The backbone's module, as transformers loads it.
        adapter: What to write.
        prototypes: Its classifier, around the text embeddings of the adapted model.

    Raises:
        AdapterError: If PEFT could not express it (naming all targets that stand in the way), or something is in the
            way on the disk. Nothing is left behind then.
    """
    r, tensors = shira_tensors(module, adapter.delta)
    paths = sorted({key.removeprefix(PREFIX).rpartition(".")[0] for key in tensors})
    backbone = adapter.card["backbone"]
    with whole_folder(folder) as aside:
        (aside / WEIGHTS).write_bytes(dump_tensors(tensors, {"format": "pt"}))
        write_json(aside / CONFIG, _config(r, paths, module, backbone))
        write_head(aside, prototypes, adapter.card)
        (aside / README).write_bytes(_readme(module, backbone["source"], len(paths)).encode())


def shira_tensors(module: nn.Module, delta: SparseDelta) -> tuple[int, dict[str, Tensor]]:
    """The lowest rank ``r`` that holds the delta, and PEFT's tensors for it.

    ``base_model.model.<layer>.shira_weight`` is ``(n,)`` fp32 and ``...shira_indices`` ``(2, n)`` int32, rows over
    columns, rising, with ``n = r * (rows + columns)``. Entries of value zero change nothing and are left out before
    counting, and so are layers that have no others.

    Raises:
        AdapterError: Naming every target that is no weight of an ``nn.Linear`` of its own, or too small for ``r``.
    """
    check_fits(delta, module)
    linears = plain_linears(module)
    parts = {name: (i[v != 0].cpu().long(), v[v != 0].cpu().float()) for name, i, v in delta.parts()}
    used = {name: part for name, part in parts.items() if len(part[0])} or dict(list(parts.items())[:1])
    wrong = [f"{name} is not the weight of an nn.Linear of its own" for name in used if name not in linears]
    wrong += [f"{name} has values that are not finite" for name, (_, v) in used.items() if not v.isfinite().all()]
    ranks = {name: -(-len(used[name][0]) // sum(linears[name].weight.shape)) for name in used if name in linears}
    r = max([1, *ranks.values()])
    for name in ranks:
        rows, columns = linears[name].weight.shape
        if r * (rows + columns) > rows * columns:
            most = max(ranks, key=lambda other: ranks[other])
            wrong.append(f"{name} has {rows * columns} entries, fewer than r = {r} (needed by {most}) asks of it")
    if wrong:
        raise AdapterError(f"PEFT's SHIRA cannot hold this adapter: {listed(wrong, '; ')}; export it as merged instead")
    tensors = {}
    for name, (indices, values) in used.items():
        rows, columns = linears[name].weight.shape
        flat, padded = _padded(indices, values, r * (rows + columns))
        path = PREFIX + name.removesuffix(".weight")
        tensors[f"{path}.{VALUES}"] = padded
        tensors[f"{path}.{INDICES}"] = torch.stack([flat // columns, flat % columns]).to(torch.int32)
    return r, tensors


def _padded(indices: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` rising positions and their values, the lowest free positions filled with ``-0.0``."""
    free = torch.ones(count, dtype=torch.bool)  # so many positions hold enough free ones, wherever the others lie
    free[indices[indices < count]] = False
    flat = torch.cat([indices, free.nonzero().flatten()[: count - len(indices)]])
    order = flat.argsort()
    return flat[order], torch.cat([values, torch.full((count - len(values),), -0.0)])[order]


def _config(r: int, paths: list[str], module: nn.Module, backbone: Mapping[str, Any]) -> dict[str, Any]:
    own = {"init_weights": True, "mask_type": "stored", "peft_type": "SHIRA", "r": r, "random_seed": None}
    return base_fields(module, backbone, paths) | own


def _readme(module: nn.Module, source: str, layers: int) -> str:
    return f"""\
---
library_name: peft
---

# A sparse adapter of {source}

PEFT (0.18 or newer) reads this folder as SHiRA, on {layers} layers:

{loading(module, source)}
**Only `PeftModel.from_pretrained` reads it.** `load_adapter` of transformers drops the indices of SHiRA adapters; it
fails here, where with other SHiRA folders it may be wrong without a word.

PEFT ignores the classifier. These five lines run it, and give the very logits of the adapter:

{READING}"""


def __getattr__(name: str) -> Any:
    """``KusabiConfig``, or a clear error where PEFT is missing or too old."""
    if name == "KusabiConfig":
        return kusabi_config()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


plug_in()
