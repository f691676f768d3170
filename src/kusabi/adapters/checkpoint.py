"""An adapter on disk: ``adapter.safetensors`` (what was learned) and ``adapter.json`` (the card: everything else).

The same adapter always gives the same bytes: one canonical header, no time, no path. Values are stored in bf16 and
positions as Rice-coded gaps over all targets laid end to end; what is evaluated is what was stored. The card carries a
digest over both files, so that a flipped byte, or two files of different adapters, never pass for an adapter.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from kusabi.adapters.index_code import decode, encode
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, CheckpointError, listed
from kusabi.files import write_bytes

SCHEMA = 1
WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
HEAD_TYPES = {"displacement": torch.bfloat16, "offset": torch.float32, "log_gain": torch.float32}


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, whole.

    ``head`` holds the classifier's ``displacement`` ``(C, D)``, ``offset`` ``(C,)`` and ``log_gain`` ``()``, and is
    empty where the text classifier was kept. ``card`` is plain JSON data; saving adds the fields of the format itself
    (``schema_version``, ``index_code``, ``digest``).
    """

    delta: SparseDelta
    head: Mapping[str, Tensor]
    card: Mapping[str, Any]


class _Part(BaseModel):
    """A part of the card as far as loading relies on it; further fields are the writer's own."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Target(_Part):
    tensor: str
    size: int = Field(ge=0, lt=2**31)
    entries: int = Field(ge=0)


class _IndexCode(_Part):
    k: int = Field(ge=0, lt=32)
    positions: int


class _Backbone(_Part):
    source: str
    digest: str
    tensors: dict[str, str]
    preprocessing: dict[str, Any]


class _Head(_Part):
    kind: Literal["prototypes", "text"]


class _Card(_Part):
    kind: str
    targets: Annotated[list[_Target], Field(min_length=1)]
    index_code: _IndexCode
    backbone: _Backbone
    classes: list[str]
    prompts: Any
    head: _Head | None = None
    embedding_size: int = Field(0, ge=0)
    digest: str


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
    for name, tensor in adapter.head.items():
        tensors[f"prototypes.{name}"] = tensor.detach().cpu().to(HEAD_TYPES[name]).contiguous()
    card = {**adapter.card, "schema_version": SCHEMA, "targets": targets, "index_code": {"k": k, "positions": offset}}
    weights = dump_tensors(tensors)
    return weights, {**card, "digest": _digest(weights, card)}


def rounded(adapter: Adapter) -> Adapter:
    """The adapter as ``load_adapter`` would give it back, without a detour over files."""
    copy = SparseDelta({name: indices.cpu() for name, indices, _ in adapter.delta.parts()})
    copy.values.data.copy_(adapter.delta.values.detach().to(torch.bfloat16))
    head = {name: tensor.detach().cpu().to(HEAD_TYPES[name]).float() for name, tensor in adapter.head.items()}
    return Adapter(copy, head, adapter.card)


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write both files, each aside first and then renamed."""
    weights, card = pack(adapter)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / WEIGHTS, weights)
    write_bytes(folder / CARD, text.encode())


def load_adapter(folder: Path) -> Adapter:
    """The adapter in a folder, as stored (bf16-rounded values, in fp32).

    Raises:
        CheckpointError: If a file is missing, damaged, hostile or of another version, listing all mismatches.
    """
    card = _read_card(folder / CARD)
    path = folder / WEIGHTS
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tensors = load_tensors(weights)
    except Exception as error:  # a hostile header raises more than SafetensorError: KeyError, RuntimeError, ...
        raise CheckpointError(f"{path}: damaged or truncated ({error}); restore it or train again") from None
    _check_tensors(path, tensors, card)
    if _digest(weights, card) != card["digest"]:
        raise CheckpointError(f"{folder}: {WEIGHTS} or {CARD} was changed after saving; restore both or train again")
    sizes = [target["size"] for target in card["targets"]]
    try:
        positions = decode(tensors["indices"].numpy(), card["index_code"]["k"], sum(_entries(card)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Adapter(
        _delta(path, positions, sizes, card, tensors["values"]),
        {name: tensors[f"prototypes.{name}"].float() for name in HEAD_TYPES if f"prototypes.{name}" in tensors},
        card,
    )


def check_backbone(
    card: Mapping[str, Any], digest: str, tensor_digests: Mapping[str, str], preprocessing: Mapping[str, Any]
) -> None:
    """Refuse a backbone other than the adapter's own, naming the first tensor that differs.

    Args:
        card: The adapter's.
        digest: Of all tensors of the model at hand, as stored.
        tensor_digests: Name -> digest of each of them.
        preprocessing: How the model at hand is shown pictures, as plain JSON data.

    Raises:
        AdapterError: If the weights or the preprocessing differ.
    """
    own = card["backbone"]
    made = f"adapter made for {own['source']}, digest {own['digest'][:12]}; this model has {digest[:12]}"
    if digest != own["digest"]:
        known = own["tensors"]
        names = [name for name in sorted(known.keys() | tensor_digests) if known.get(name) != tensor_digests.get(name)]
        first = names[0] if names else "(none by name)"
        what = "is missing from it" if first not in tensor_digests else "differs" if first in known else "is new in it"
        raise AdapterError(f"this model is another backbone or revision: tensor '{first}' {what} ({made})")
    wrong = [key for key, value in own["preprocessing"].items() if preprocessing.get(key) != value]
    if wrong:
        wanted = ", ".join(f"{key} {own['preprocessing'][key]!r}, not {preprocessing.get(key)!r}" for key in wrong)
        raise AdapterError(f"this adapter was trained on pictures prepared otherwise: {wanted}")


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); is this an adapter folder?") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA:
        found = card.get("schema_version") if isinstance(card, dict) else None
        raise CheckpointError(f"{path}: schema version {found!r} is not {SCHEMA}; use the kusabi that wrote it")
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        wrong = [f"'{'.'.join(map(str, problem['loc']))}': {problem['msg']}" for problem in error.errors()]
        raise CheckpointError(f"{path}: damaged card: {listed(wrong, '; ')}") from None
    names = [target["tensor"] for target in card["targets"]]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CheckpointError(f"{path}: damaged card: listed twice as target: {listed(repeated)}")
    return card


def _digest(weights: bytes, card: Mapping[str, Any]) -> str:
    """The adapter's name: sha256 over the weights and every other field of the card."""
    fields = {key: value for key, value in card.items() if key != "digest"}
    return hashlib.sha256(weights + json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _entries(card: Mapping[str, Any]) -> list[int]:
    return [target["entries"] for target in card["targets"]]


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    classes, width = len(card["classes"]), card.get("embedding_size", 0)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...] | None]] = {
        "indices": (torch.uint8, None),
        "values": (torch.bfloat16, (sum(_entries(card)),)),
    }
    if (card.get("head") or {}).get("kind") == "prototypes":
        shapes = {"displacement": (classes, width), "offset": (classes,), "log_gain": ()}
        expected |= {f"prototypes.{name}": (dtype, shapes[name]) for name, dtype in HEAD_TYPES.items()}
    wrong = [f"'{name}' is missing" for name in sorted(expected.keys() - tensors.keys())]
    wrong += [f"'{name}' does not belong here" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, (dtype, shape) = tensors[name], expected[name]
        if tensor.dtype != dtype or (tuple(tensor.shape) != shape if shape is not None else tensor.ndim != 1):
            wanted = "(bytes)" if shape is None else shape
            wrong.append(f"'{name}' is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {wanted}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            wrong.append(f"'{name}' holds values that are not finite")
    if wrong:
        raise CheckpointError(f"{path}: {listed(wrong, '; ')}")


def _delta(path: Path, positions: np.ndarray, sizes: list[int], card: Mapping[str, Any], values: Tensor) -> SparseDelta:
    starts = np.cumsum([0, *sizes])
    bounds = np.searchsorted(positions, starts)
    if list(np.diff(bounds)) != _entries(card):
        raise CheckpointError(f"{path}: positions do not fall into the targets that {CARD} lists")
    supports = {
        target["tensor"]: torch.from_numpy(positions[bounds[i] : bounds[i + 1]] - starts[i])
        for i, target in enumerate(card["targets"])
    }
    delta = SparseDelta(supports)
    delta.values.data.copy_(values.float())
    return delta
