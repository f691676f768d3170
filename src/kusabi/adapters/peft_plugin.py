"""PEFT learns of Kusabi's sparse delta where it is installed, and nobody waits for it where it is not."""

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kusabi.errors import AdapterError

FLOOR = (0, 21)  # up to 0.20 it casts integer buffers to the dtype of the layer, which moves the entries


def plug_in() -> None:
    """Register ``KUSABI`` with PEFT; nothing happens where PEFT is missing, too old or broken."""
    try:
        if _complaint() is None:
            import_module("kusabi.adapters.peft_tuner")
    except Exception:  # whatever a PEFT beside other versions of its own needs raises: whoever asks for it is told
        return


def kusabi_config() -> Any:
    """The class ``KusabiConfig``.

    Raises:
        AdapterError: If PEFT is missing or too old.
        Exception: Whatever PEFT raises where it cannot be imported.
    """
    if complaint := _complaint():
        raise AdapterError(complaint)
    return import_module("kusabi.adapters.peft_tuner").KusabiConfig


def _complaint() -> str | None:
    floor = ".".join(map(str, FLOOR))
    try:
        found = version("peft")
    except PackageNotFoundError:
        return f"PEFT is not installed; pip install 'peft>={floor}'"
    number = re.match(r"(\d+)\.(\d+)", found)
    if number is None or tuple(map(int, number.groups())) < FLOOR:
        return (
            f"PEFT {found} is too old for KusabiConfig: it would move the trained entries; pip install 'peft>={floor}'"
        )
    return None
