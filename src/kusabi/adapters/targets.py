"""Which weights an adapter sits on. ``plan()`` answers before anything changes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from kusabi.adapters.placement import Piece, pieces_of
from kusabi.adapters.support import allocate
from kusabi.errors import AdapterError, listed
from kusabi.spec import AUTO, AdapterSpec

BYTES_PER_ENTRY = 3.5  # bf16 value and gap-coded index at 0.1 % density; denser supports need less

_WEIGHTED = (nn.Linear, nn.MultiheadAttention, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Target:
    """One weight that would be trained in part."""

    tensor: str
    tower: str
    layer: int
    projection: str
    size: int
    entries: int


@dataclass(frozen=True)
class Plan:
    """Everything an adapter would touch."""

    targets: tuple[Target, ...]

    @property
    def entries(self) -> int:
        """Trained weight entries in all."""
        return sum(target.entries for target in self.targets)

    @property
    def size(self) -> int:
        """Entries of the targeted weights."""
        return sum(target.size for target in self.targets)

    @property
    def first_layer(self) -> dict[str, int]:
        """Lowest adapted layer per tower; a tower that is not adapted is absent."""
        lowest: dict[str, int] = {}
        for target in self.targets:
            lowest[target.tower] = min(target.layer, lowest.get(target.tower, target.layer))
        return lowest

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "entries": self.entries,
            "targeted": self.size,
            "density": self.entries / self.size,
            "bytes": round(self.entries * BYTES_PER_ENTRY),
            "targets": [asdict(target) for target in self.targets],
        }


def plan(module: nn.Module, blocks: Mapping[str, Sequence[str]], spec: AdapterSpec) -> Plan:
    """The targeted weights of a spec, its budget shared over them by size; nothing is changed.

    Args:
        module: The frozen model.
        blocks: Tower -> dotted names of its blocks from bottom to top.
        spec: What was asked.

    Raises:
        AdapterError: If nothing matches, naming what could have matched.
    """
    pieces = pieces_of(spec)
    found: list[tuple[str, str, int, str, int]] = []
    canonical = {id(parameter): name for name, parameter in module.named_parameters()}  # tied weights: first name
    seen: set[int] = set()
    known: list[set[str]] = [set() for _ in pieces]
    met: list[set[str]] = [set() for _ in pieces]
    for (tower, layer), meant in _layers(blocks, spec).items():
        for projection, parameter in _weights(module.get_submodule(blocks[tower][layer])):
            hits = {i: {p for p in pieces[i].projections if _matches(projection, p)} for i in meant}
            for i, patterns in hits.items():
                known[i].add(projection)
                met[i] |= patterns
            if any(hits.values()) and id(parameter) not in seen:
                seen.add(id(parameter))
                found.append((canonical[id(parameter)], tower, layer, projection, parameter.numel()))
    _check_met(spec, pieces, known, met)
    sizes = [size for *_, size in found]
    budget = spec.budget or max(1, round(spec.density * sum(sizes)))
    if budget > sum(sizes):
        raise AdapterError(f"budget {budget} is larger than the {sum(sizes)} entries of the targeted weights")
    shares = allocate(budget, sizes)
    targets = (Target(*row, entries=k) for row, k in zip(found, shares, strict=True))
    return Plan(tuple(target for target in targets if target.entries))


def placed_blocks(blocks: Mapping[str, Sequence[str]], spec: AdapterSpec) -> Iterator[tuple[str, int, str]]:
    """Tower, layer and name of every block that a spec names, from bottom to top.

    Raises:
        AdapterError: If a tower has no such layer.
    """
    for tower, layer in _layers(blocks, spec):
        yield tower, layer, blocks[tower][layer]


def _layers(blocks: Mapping[str, Sequence[str]], spec: AdapterSpec) -> dict[tuple[str, int], list[int]]:
    """Tower and layer -> the pieces of the placement that mean it; vision first, from bottom to top."""
    meant: dict[tuple[str, int], list[int]] = {}
    wrong = []
    for i, piece in enumerate(pieces_of(spec)):
        for tower in piece.towers:
            try:
                layers = layer_range(piece.layers, len(blocks[tower]))
            except AdapterError as error:
                wrong.append(str(error) if spec.placement is None else f"placement '{piece}', {tower} tower: {error}")
                continue
            for layer in layers:
                meant.setdefault((tower, layer), []).append(i)
    if wrong:
        raise AdapterError(listed(wrong, "; "))
    order = {tower: place for place, tower in enumerate(("vision", "text"))}
    return dict(sorted(meant.items(), key=lambda item: (order[item[0][0]], item[0][1])))


def _check_met(spec: AdapterSpec, pieces: Sequence[Piece], known: Sequence[set[str]], met: Sequence[set[str]]) -> None:
    """A placement must mean something by every pattern; a spec without one, by any of them."""
    if len(pieces) == 1 and spec.placement in (None, AUTO):
        if not met[0]:
            raise AdapterError(
                f"no weight matches tower '{spec.tower}', layers '{spec.layers}', projections "
                f"{', '.join(map(repr, spec.projections))}; weights in these layers: "
                f"{', '.join(sorted(known[0])) or 'none'}"
            )
        return
    wrong = [
        f"'{piece}': no weight matches {', '.join(map(repr, idle))}; weights in these layers: "
        f"{', '.join(sorted(of_piece)) or 'none'}"
        for piece, of_piece, matched in zip(pieces, known, met, strict=True)
        if (idle := [pattern for pattern in piece.projections if pattern not in matched])
    ]
    if wrong:
        raise AdapterError(f"placement {listed(wrong, '; ')}")


def everything(module: nn.Module, blocks: Mapping[str, Sequence[str]]) -> Plan:
    """Every weight of both towers that an adapter could sit on, whole."""
    return plan(module, blocks, AdapterSpec(tower="both", layers="all", density=1.0))


def layer_range(text: str, count: int) -> tuple[int, ...]:
    """Layers meant by ``upper-half``, ``all``, ``last-N`` or a list such as ``4-7`` or ``0,2,5``.

    ``auto`` means the upper half until pictures have said more (``training/depth_choice.py``).

    Raises:
        AdapterError: If the text is none of these or names a layer that the tower lacks.
    """
    if text == "all":
        return tuple(range(count))
    if text in ("upper-half", AUTO):
        return tuple(range(count // 2, count))
    if last := re.fullmatch(r"last-(\d+)", text):
        ranges = [(count - int(last[1]), count - 1)]
    elif re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        ends = [part.split("-") for part in text.split(",")]
        ranges = [(int(part[0]), int(part[-1])) for part in ends]
    else:
        raise AdapterError(f"layers '{text}' is not understood; write auto, upper-half, all, last-N, 4-7 or 0,2,5")
    if not all(0 <= first <= final < count for first, final in ranges):  # before a range of any length is built
        raise AdapterError(f"layers '{text}': this tower has layers 0 to {count - 1}")
    return tuple(sorted({layer for first, final in ranges for layer in range(first, final + 1)}))


def _weights(block: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Matrices and kernels of a block, fused attention weights included."""
    for path, submodule in block.named_modules():
        if isinstance(submodule, _WEIGHTED):
            for name, parameter in submodule.named_parameters(path, recurse=False):
                if parameter.ndim >= 2:
                    yield name, parameter


def _matches(projection: str, pattern: str) -> bool:
    """A pattern meets the whole path in the layer, or one of its parts (``q_proj``, ``mlp``)."""
    return fnmatchcase(projection, pattern) or any(fnmatchcase(part, pattern) for part in projection.split("."))
