"""Every kind of adapter part, by the name that a card gives it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError

KINDS: Mapping[str, type[AdapterPart]] = {kind.kind: kind for kind in (SparseDelta, LowRank, Bottleneck)}


def build_part(described: Mapping[str, Any], supports: Mapping[str, Tensor]) -> AdapterPart:
    """A part from what a card says of it, all values zero.

    Args:
        described: ``kind``, and what ``settings()`` of that kind gives.
        supports: Tensor name -> positions.

    Raises:
        AdapterError: If the kind is unknown, or the settings make no sense.
    """
    if (kind := described["kind"]) not in KINDS:
        raise AdapterError(f"adapters of kind '{kind}' are not known here (known: {', '.join(KINDS)}); update kusabi")
    return KINDS[kind].build({key: value for key, value in described.items() if key != "kind"}, supports)
