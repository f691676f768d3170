"""A sparse delta as a ``KUSABI`` folder of PEFT, and back: every entry, also those of value zero, and no other.

Writing and reading need nothing of PEFT. What PEFT saves after training is read back in the same way, so that an
adapter may go over to ``Trainer`` and come home.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.exported_head import READING, write_head, write_json
from kusabi.adapters.part import check_fits
from kusabi.adapters.peft_names import CONFIG, PREFIX, README, WEIGHTS, end_to_end
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError, CheckpointError, listed

KUSABI_VALUES, KUSABI_INDICES = "kusabi_values", "kusabi_indices"
OF_KUSABI = {"density", "budget", "allocation", "support_rule", "seed", "indices", "counts", "stored"}


def export_kusabi(folder: Path, module: nn.Module, adapter: Adapter, prototypes: Prototypes) -> None:
    """Write an adapter for PEFT with Kusabi in it, with its classifier beside it; it can be trained on.

    Args:
        folder: Where to; must be new or empty.
        module: The backbone's module, as transformers loads it.
        adapter: What to write.
        prototypes: Its classifier, around the text embeddings of the adapted model.

    Raises:
        AdapterError: Naming all targets that are no weight of an ``nn.Linear`` of their own, or saying what is in the
            way on the disk. Nothing is left behind then.
    """
    tensors, counts = kusabi_tensors(module, adapter.delta)
    backbone = adapter.card["backbone"]
    with whole_folder(folder) as aside:
        (aside / WEIGHTS).write_bytes(dump_tensors(tensors, {"format": "pt"}))
        write_json(aside / CONFIG, _config(module, counts, backbone["source"], backbone.get("revision")))
        write_head(aside, prototypes, adapter.card)
        (aside / README).write_bytes(_readme(module, backbone["source"]).encode())


def kusabi_tensors(module: nn.Module, delta: SparseDelta) -> tuple[dict[str, Tensor], dict[str, int]]:
    """PEFT's tensors, and layer -> number of entries.

    ``base_model.model.<layer>.kusabi_values`` is ``(k,)`` fp32 and ``...kusabi_indices`` ``(k,)`` int32, rising. Layers
    without an entry have no tensors.

    Raises:
        AdapterError: Naming every target that is no weight of an ``nn.Linear`` of its own.
    """
    check_fits(delta, module)
    linears = plain_linears(module)
    if wrong := [name for name in delta.names if name not in linears]:
        raise AdapterError(f"PEFT adapts weights of an nn.Linear of their own only, not {listed(wrong)}")
    tensors, counts = {}, {}
    for name, indices, values in delta.parts():
        path = name.removesuffix(".weight")
        counts[path] = len(values)
        if len(values):
            tensors[f"{PREFIX}{path}.{KUSABI_VALUES}"] = values.detach().float().cpu().clone()
            tensors[f"{PREFIX}{path}.{KUSABI_INDICES}"] = indices.cpu().to(torch.int32).clone()
    return tensors, counts


def read_kusabi(
    folder: Path, config: Mapping[str, Any], layers: Iterable[tuple[str, int, Tensor, Tensor]]
) -> SparseDelta:
    """The delta of a ``KUSABI`` folder.

    Args:
        folder: For messages.
        config: Its configuration.
        layers: Path, entries of the weight, ``kusabi_values`` and ``kusabi_indices``, in the order of the model.

    Raises:
        CheckpointError: Listing every layer whose entries are not what the configuration says, or make no sense.
    """
    counts = config.get("counts")
    if not isinstance(counts, Mapping) or not all(type(count) is int for count in counts.values()):
        raise CheckpointError(f"{folder / CONFIG}: 'counts' must give the number of entries of every layer")
    wrong, parts = [], {}
    for path, size, values, indices in layers:
        count = counts.get(path, "no")
        if not tuple(values.shape) == tuple(indices.shape) == (count,):
            wrong.append(f"{path}: {tuple(values.shape)} values and {tuple(indices.shape)} indices for {count} entries")
        elif indices.is_floating_point() or not values.is_floating_point():
            wrong.append(f"{path}: values are {values.dtype} and indices {indices.dtype}")
        elif bool((indices[1:] <= indices[:-1]).any() | (indices < 0).any() | (indices >= size).any()):
            wrong.append(f"{path}: indices do not rise within the {size} entries of its weight")
        parts[path] = (indices, values)
    wrong += [
        f"{path}: its {count} entries are missing" for path, count in counts.items() if count and path not in parts
    ]
    if wrong:
        raise CheckpointError(f"{folder / WEIGHTS}: {listed(wrong, '; ')}")
    empty = {path: (torch.zeros(0, dtype=torch.int32), torch.zeros(0)) for path in counts if path not in parts}
    parts |= empty
    delta = SparseDelta({f"{path}.weight": indices for path, (indices, _) in parts.items()})
    delta.values.data.copy_(torch.cat([values.float() for _, values in parts.values()]))
    return delta


def _config(module: nn.Module, counts: Mapping[str, int], source: str, revision: str | None) -> dict[str, Any]:
    """What ``KusabiConfig`` writes."""
    known = type(module).__module__.startswith("transformers.")
    found = {"base_model_class": type(module).__name__, "parent_library": type(module).__module__}
    return {
        "auto_mapping": found if known else None,
        "base_model_name_or_path": source,
        "counts": counts,
        "inference_mode": True,
        "modules_to_save": None,
        "peft_type": "KUSABI",
        "revision": revision,
        "stored": True,
        "support_rule": "given",
        "target_modules": end_to_end(sorted(counts)),
        "task_type": None,
    }


def _readme(module: nn.Module, source: str) -> str:
    kind, dtype = type(module).__name__, next(module.parameters()).dtype
    return f"""\
---
library_name: peft
---

# A sparse adapter of {source}

PEFT (0.21 or newer) reads this folder where Kusabi is installed too; `is_trainable=True` goes on training it, and
`load_adapter` of transformers reads it as well:

```python
import json
from pathlib import Path

import kusabi.adapters.peft_format  # makes PEFT know this kind of adapter
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import {kind}

folder = Path("this folder")
backbone = {kind}.from_pretrained("{source}", dtype={dtype})
model = PeftModel.from_pretrained(backbone, folder).eval()
```

PEFT ignores the classifier. These five lines run it, and give the very logits of the adapter:

{READING}"""
