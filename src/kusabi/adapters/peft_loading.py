"""What each folder for PEFT says whatever its method: whose model it belongs to, and the lines that load it."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kusabi.adapters.peft_names import end_to_end


def base_fields(module: nn.Module, backbone: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Fields of ``adapter_config.json`` that all methods have, all known to every PEFT from 0.18.

    Args:
        module: The backbone's module, as transformers loads it.
        backbone: Its ``source`` and, if there is one, ``revision``, from the adapter's card.
        paths: Of the adapted layers.
    """
    known = type(module).__module__.startswith("transformers.")
    found = {"base_model_class": type(module).__name__, "parent_library": type(module).__module__}
    return {
        "auto_mapping": found if known else None,
        "base_model_name_or_path": backbone["source"],
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
        "revision": backbone.get("revision"),
        "target_modules": end_to_end(paths),
        "task_type": None,
    }


def loading(module: nn.Module, source: str) -> str:
    """The code, for a README, that loads a folder as ``model``."""
    kind, dtype = type(module).__name__, next(module.parameters()).dtype
    return f"""\
```python
import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import {kind}

folder = Path("this folder")
backbone = {kind}.from_pretrained("{source}", dtype={dtype})
model = PeftModel.from_pretrained(backbone, folder).eval()
```
"""
