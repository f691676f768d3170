"""An adapter on disk: ``adapter.safetensors`` (what was learned) and ``adapter.json`` (the card: everything else).

The same adapter always gives the same bytes: one canonical header, no time, no path. Values are stored in bf16 and
positions as Rice-coded gaps over all targets laid end to end; what is evaluated is what was stored.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from kusabi.adapters.index_code import decode, encode
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, CheckpointError

SCHEMA = 1
WEIGHTS, CARD = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, whole.

    ``displacement`` ``(C, D)`` and ``log_gain`` ``()`` are the classifier's; both None where the text classifier was
    kept. ``card`` is plain JSON data.
    """

    delta: SparseDelta
    displacement: Tensor | None
    log_gain: Tensor | None
    card: Mapping[str, Any]


def pack(adapter: Adapter) -> tuple[bytes, dict[str, Any]]:
    """Bytes of ``adapter.safetensors`` and the finished card."""
    offset, laid, targets = 0, [], []
    for target, (name, indices, _) in zip(adapter.card["targets"], adapter.delta.parts(), strict=True):
        assert target["tensor"] == name, "the card lists the targets in the order of the delta"
        laid.append(indices.cpu().numpy().astype(np.int64) + offset)
        targets.append({**target, "entries": len(indices)})
        offset += target["size"]
    k, code = encode(np.concatenate(laid))
    tensors = {"indices": torch.from_numpy(code), "values": adapter.delta.values.detach().cpu().to(torch.bfloat16)}
    if adapter.displacement is not None and adapter.log_gain is not None:
        tensors["prototypes.displacement"] = adapter.displacement.detach().cpu().to(torch.bfloat16).contiguous()
        tensors["prototypes.log_gain"] = adapter.log_gain.detach().cpu().to(torch.float32)
    card = {**adapter.card, "schema_version": SCHEMA, "targets": targets, "index_code": {"k": k, "positions": offset}}
    return dump_tensors(tensors), card


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write both files, each aside first and then renamed."""
    weights, card = pack(adapter)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / WEIGHTS, weights)
    write_bytes(folder / CARD, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, flush to the disk, rename: a reader sees the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_adapter(folder: Path) -> Adapter:
    """The adapter in a folder, as stored (bf16-rounded values, in fp32).

    Raises:
        CheckpointError: If a file is missing, damaged, hostile or of another version, listing all mismatches.
    """
    card = _read_card(folder / CARD)
    path = folder / WEIGHTS
    try:
        tensors = load_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or truncated ({error}); restore it or train again") from None
    _check_tensors(path, tensors, card)
    sizes = [target["size"] for target in card["targets"]]
    try:
        positions = decode(tensors["indices"].numpy(), card["index_code"]["k"], sum(_entries(card)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Adapter(
        _delta(path, positions, sizes, card, tensors["values"]),
        tensors["prototypes.displacement"].float() if "prototypes.displacement" in tensors else None,
        tensors.get("prototypes.log_gain"),
        card,
    )


def check_backbone(card: Mapping[str, Any], digest: str, tensor_digests: Mapping[str, str]) -> None:
    """Refuse a backbone other than the adapter's own, naming the first tensor that differs.

    Raises:
        AdapterError: If the digests differ.
    """
    own = card["backbone"]
    if digest == own["digest"]:
        return
    for name, expected in own["tensors"].items():
        if tensor_digests.get(name) != expected:
            what = "is missing from this model" if name not in tensor_digests else "differs"
            raise AdapterError(
                f"this adapter belongs to another backbone or revision: tensor '{name}' {what} "
                f"(adapter made for {own['source']}, digest {own['digest'][:12]}; this model has {digest[:12]})"
            )
    raise AdapterError(
        f"this adapter was made for {own['source']} with other preprocessing (input size, fit, mean or deviation); "
        f"load the backbone with {own['preprocessing']}"
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); is this an adapter folder?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA:
        found = card.get("schema_version") if isinstance(card, dict) else None
        raise CheckpointError(f"{path}: schema version {found!r} is not {SCHEMA}; use the kusabi that wrote it")
    missing = [key for key in ("targets", "index_code", "backbone", "classes", "prompts", "kind") if key not in card]
    try:
        entries = _entries(card) if not missing else []
        sound = all(0 <= n <= t["size"] for n, t in zip(entries, card.get("targets", []), strict=True))
    except (TypeError, KeyError, ValueError):
        sound = False
    if missing or not sound:
        raise CheckpointError(f"{path}: damaged card ({'lacks ' + ', '.join(missing) if missing else 'bad targets'})")
    return card


def _entries(card: Mapping[str, Any]) -> list[int]:
    return [int(target["entries"]) for target in card["targets"]]


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    classes, width = len(card["classes"]), int(card.get("embedding_size", 0))
    expected: dict[str, tuple[torch.dtype, tuple[int, ...] | None]] = {
        "indices": (torch.uint8, None),
        "values": (torch.bfloat16, (sum(_entries(card)),)),
    }
    if card.get("head", {}).get("kind") == "prototypes":
        expected["prototypes.displacement"] = (torch.bfloat16, (classes, width))
        expected["prototypes.log_gain"] = (torch.float32, ())
    wrong = [f"'{name}' is missing" for name in sorted(expected.keys() - tensors.keys())]
    wrong += [f"'{name}' does not belong here" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, (dtype, shape) = tensors[name], expected[name]
        if tensor.dtype != dtype or (tuple(tensor.shape) != shape if shape is not None else tensor.ndim != 1):
            wrong.append(f"'{name}' is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape or '(bytes)'}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            wrong.append(f"'{name}' holds values that are not finite")
    if wrong:
        raise CheckpointError(f"{path}: " + "; ".join(wrong))


def _delta(
    path: Path, positions: np.ndarray, sizes: list[int], card: Mapping[str, Any], values: Tensor
) -> SparseDelta:
    starts = np.cumsum([0, *sizes])
    bounds = np.searchsorted(positions, starts)
    if list(np.diff(bounds)) != _entries(card) or bounds[-1] != len(positions):
        raise CheckpointError(f"{path}: positions do not fall into the targets that {CARD} lists")
    supports = {
        target["tensor"]: torch.from_numpy(positions[bounds[i] : bounds[i + 1]] - starts[i])
        for i, target in enumerate(card["targets"])
    }
    delta = SparseDelta(supports)
    delta.values.data.copy_(values.float())
    return delta
