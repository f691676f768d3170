"""An adapter on disk: ``adapter.safetensors`` (what was learned) and ``adapter.json`` (the card: everything else).

The same adapter always gives the same bytes: one canonical header, no time, no path. Values are stored in bf16 and
positions as Rice-coded gaps over all targets laid end to end; what is evaluated is what was stored. The card carries a
digest over both files, so that a flipped byte, or two files of different adapters, never pass for an adapter.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from kusabi.adapters.card import SCHEMA, parts_of, read_card
from kusabi.adapters.index_code import decode, encode
from kusabi.adapters.kinds import build_part
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError, CheckpointError, listed
from kusabi.files import make_folder, write_bytes

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
HEAD_TYPES = {"displacement": torch.bfloat16, "offset": torch.float32, "log_gain": torch.float32}


Part = TypeVar("Part", bound=AdapterPart)


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, whole.

    ``parts`` are what it adds to the model, in order. ``head`` holds the classifier's ``displacement`` ``(C, D)``,
    ``offset`` ``(C,)`` and ``log_gain`` ``()``, and is empty where the text classifier was kept. ``card`` is plain JSON
    data; saving adds the fields of the format itself (``schema_version``, ``parts``, ``index_code``, ``digest``).
    """

    parts: tuple[AdapterPart, ...]
    head: Mapping[str, Tensor]
    card: Mapping[str, Any]

    @property
    def delta(self) -> SparseDelta:
        """The one sparse delta that it consists of; see ``only``."""
        return self.only(SparseDelta)

    def only(self, kind: type[Part]) -> Part:
        """The one part that it consists of.

        Raises:
            AdapterError: If it is of another kind.
        """
        if len(self.parts) != 1 or not isinstance(self.parts[0], kind):
            kinds = " + ".join(part.kind for part in self.parts)
            raise AdapterError(f"this needs an adapter of kind {kind.kind}, not {kinds}")
        return self.parts[0]


def pack(adapter: Adapter) -> tuple[bytes, dict[str, Any]]:
    """Bytes of ``adapter.safetensors`` and the finished card."""
    offset, laid, targets = 0, [], []
    entries = [(number, *entry) for number, part in enumerate(adapter.parts) for entry in part.parts()]
    for target, (number, name, indices, _) in zip(adapter.card["targets"], entries, strict=True):
        assert target["tensor"] == name, "the card lists the targets in the order of the parts"
        laid.append(indices.cpu().numpy().astype(np.int64) + offset)
        targets.append({**target, "entries": len(indices)} | ({"part": number} if number else {}))
        offset += target["size"]
    values = torch.cat([part.values.detach().cpu().to(torch.bfloat16) for part in adapter.parts])
    tensors = {"values": values}
    seed = adapter.card.get("seed") if adapter.card.get("support_rule") == "random" else None
    if seed is not None and np.array_equal(np.concatenate(laid), drawn_positions(targets, seed)):
        index_code = {"seed": seed, "positions": offset}
    else:
        k, code = encode(np.concatenate(laid))
        index_code, tensors["indices"] = {"k": k, "positions": offset}, torch.from_numpy(code)
    for name, tensor in adapter.head.items():
        tensors[f"prototypes.{name}"] = tensor.detach().cpu().to(HEAD_TYPES[name]).contiguous()
    parts = [{"kind": part.kind, **part.settings()} for part in adapter.parts]
    card = {**adapter.card, "schema_version": SCHEMA, "targets": targets, "parts": parts, "index_code": index_code}
    weights = dump_tensors(tensors)
    return weights, {**card, "digest": _digest(weights, card)}


def drawn_positions(targets: Sequence[Mapping[str, Any]], seed: int) -> np.ndarray:
    """Positions, over all targets laid end to end, of a random support that never moved."""
    drawn, offset = [], 0
    for target in targets:
        chosen = random_support(target["size"], target["entries"], seed, target["tensor"])
        drawn.append(chosen.numpy().astype(np.int64) + offset)
        offset += target["size"]
    return np.concatenate(drawn)


def rounded(adapter: Adapter) -> Adapter:
    """The adapter as ``load_adapter`` would give it back, without a detour over files."""
    copies = []
    for part in adapter.parts:
        one = copy.deepcopy(part).cpu()
        one.values.data = part.values.detach().cpu().to(torch.bfloat16).float()
        copies.append(one)
    head = {name: tensor.detach().cpu().to(HEAD_TYPES[name]).float() for name, tensor in adapter.head.items()}
    return Adapter(tuple(copies), head, adapter.card)


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Write both files, each aside first and then renamed."""
    weights, card = pack(adapter)
    make_folder(folder)
    text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / WEIGHTS, weights)
    write_bytes(folder / CARD, text.encode())


def load_adapter(folder: Path) -> Adapter:
    """The adapter in a folder, as stored (bf16-rounded values, in fp32).

    Raises:
        CheckpointError: If a file is missing, damaged, hostile or of another version, listing all mismatches.
    """
    card = read_card(folder / CARD)
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
    return Adapter(
        _parts(path, _positions(path, tensors, card), card, tensors["values"]),
        {name: tensors[f"prototypes.{name}"].float() for name in HEAD_TYPES if f"prototypes.{name}" in tensors},
        card,
    )


def _digest(weights: bytes, card: Mapping[str, Any]) -> str:
    """The adapter's name: sha256 over the weights and every other field of the card."""
    fields = {key: value for key, value in card.items() if key != "digest"}
    return hashlib.sha256(weights + json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _entries(card: Mapping[str, Any]) -> list[int]:
    return [target["entries"] for target in card["targets"]]


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    classes, width = len(card["classes"]), card.get("embedding_size", 0)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...] | None]] = {
        "values": (torch.bfloat16, (sum(_entries(card)),)),
    }
    if card["index_code"].get("seed") is None:
        expected["indices"] = (torch.uint8, None)
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


def _positions(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> np.ndarray:
    """All positions, over the targets laid end to end."""
    seed, targets = card["index_code"].get("seed"), card["targets"]
    if seed is None:
        try:
            return decode(tensors["indices"].numpy(), card["index_code"].get("k", 0), sum(_entries(card)))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    if wrong := [target["tensor"] for target in targets if target["entries"] > target["size"]]:
        raise CheckpointError(f"{path}: more entries than positions in {listed(wrong)}")
    return drawn_positions(targets, seed)


def _parts(path: Path, positions: np.ndarray, card: Mapping[str, Any], values: Tensor) -> tuple[AdapterPart, ...]:
    starts = np.cumsum([0, *(target["size"] for target in card["targets"])])
    bounds = np.searchsorted(positions, starts)
    if list(np.diff(bounds)) != _entries(card):
        raise CheckpointError(f"{path}: positions do not fall into the targets that {CARD} lists")
    made, wrong, begin = [], [], 0
    for number, described in enumerate(parts_of(card)):
        supports = {
            target["tensor"]: torch.from_numpy(positions[bounds[i] : bounds[i + 1]] - starts[i])
            for i, target in enumerate(card["targets"])
            if target.get("part", 0) == number
        }
        try:
            part = build_part(described, supports)
        except AdapterError as error:
            wrong.append(str(error))
            continue
        part.values.data.copy_(values[begin : begin + len(part)].float())
        begin += len(part)
        made.append(part)
    if wrong:
        raise CheckpointError(f"{path.parent / CARD}: {listed(wrong, '; ')}")
    return tuple(made)
