"""What PEFT's folders are made of: names of files, keys and layers. Nothing of PEFT is needed for it."""

import re
from collections.abc import Iterable

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
PREFIX = "base_model.model."


def end_to_end(paths: Iterable[str]) -> str:
    """A pattern that meets these layers only: PEFT matches the names of a list by their endings."""
    return f"(?:{'|'.join(map(re.escape, paths))})"
