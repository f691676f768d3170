"""The card of an adapter on disk: what loading relies on, and the refusal of a model that it was not made for."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kusabi.errors import AdapterError, CheckpointError, listed

SCHEMA = 2
"""1 held one sparse delta. 2 lists ``parts`` of any kind, and may leave out positions that a seed gives again."""


class _Part(BaseModel):
    """A part of the card as far as loading relies on it; further fields are the writer's own."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Target(_Part):
    tensor: str
    tower: str = ""
    layer: int = Field(default=0, ge=0)
    size: int = Field(ge=0, lt=2**31)
    entries: int = Field(ge=0)
    part: int = Field(0, ge=0)


class _IndexCode(_Part):
    k: int = Field(0, ge=0, lt=32)
    positions: int
    seed: int | None = Field(None, ge=0, lt=2**63)


class _OfKind(_Part):
    kind: str


class _Preprocessing(_Part):
    size: int = Field(default=1, ge=1)
    fit: Literal["pad", "squash", "crop"] = "pad"


class _Backbone(_Part):
    source: str
    revision: str | None = None
    digest: str
    tensors: dict[str, str]
    preprocessing: _Preprocessing


class _Head(_Part):
    kind: Literal["prototypes", "text"]


PICTURE_DIGITS = 12


class _Data(_Part):
    name: str = "?"
    support_pictures: int = Field(default=0, ge=0)
    learned: list[str] = []  # the first PICTURE_DIGITS of the digest of every picture that was learned from


class _Resident(_Part):
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class _Shown(_Part):
    templates: list[str] | None = None


class _Spec(_Part):
    backbone: _Resident = _Resident()
    data: _Shown = _Shown()


class _Card(_Part):
    kind: str
    targets: Annotated[list[_Target], Field(min_length=1)]
    parts: Annotated[list[_OfKind], Field(min_length=1)] | None = None
    index_code: _IndexCode
    backbone: _Backbone
    classes: list[str]
    prompts: list[Annotated[list[str], Field(min_length=1)]]
    data: _Data = _Data()
    spec: _Spec = _Spec()
    head: _Head | None = None
    embedding_size: int = Field(0, ge=0)
    digest: str


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


def read_card(path: Path) -> dict[str, Any]:
    """The card in a file, of any version that was ever released.

    Raises:
        CheckpointError: If it is missing, damaged, hostile or of another version, listing all mismatches.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); is this an adapter folder?") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); restore the folder, or train again") from None
    if not isinstance(card, dict) or "schema_version" not in card:
        raise CheckpointError(f"{path}: no card of an adapter (no schema version); restore the folder, or train again")
    if (found := card["schema_version"]) not in range(1, SCHEMA + 1):
        raise CheckpointError(f"{path}: schema version {found!r} is not 1 to {SCHEMA}; use the kusabi that wrote it")
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        wrong = [f"'{'.'.join(map(str, problem['loc']))}': {problem['msg']}" for problem in error.errors()]
        raise CheckpointError(f"{path}: damaged card: {listed(wrong, '; ')}") from None
    if len(card["prompts"]) != len(card["classes"]):
        counts = f"'prompts' of {len(card['prompts'])} classes where {len(card['classes'])} are named"
        raise CheckpointError(f"{path}: damaged card: {counts}")
    names = [(target.get("part", 0), target["tensor"]) for target in card["targets"]]
    if repeated := sorted({name for name, count in Counter(names).items() if count > 1}):
        raise CheckpointError(f"{path}: damaged card: listed twice as target: {listed([name for _, name in repeated])}")
    of_parts = [target.get("part", 0) for target in card["targets"]]
    if of_parts != sorted(of_parts) or set(of_parts) != set(range(len(parts_of(card)))):
        raise CheckpointError(f"{path}: damaged card: its targets do not make up {len(parts_of(card))} parts in order")
    return card


def parts_of(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a card says of each part; schema 1 knew one."""
    return card.get("parts") or [{"kind": card["kind"]}]
