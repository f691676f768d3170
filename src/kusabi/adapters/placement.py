"""Where an adapter sits, as one line of text: pieces ``TOWER:LAYERS:PROJECTIONS`` joined by ``;``.

``vision:6-7:mlp.*`` are the weights of both top MLPs; ``vision:upper-half;text:3:query,value`` is two pieces, and
without projections a piece means all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kusabi.errors import AdapterError, listed
from kusabi.spec import AUTO, AdapterSpec

TOWERS = ("vision", "text")


@dataclass(frozen=True)
class Piece:
    """Layers of one tower or ``both``, and patterns of weights inside them."""

    tower: str
    layers: str
    projections: tuple[str, ...]

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers meant."""
        return TOWERS if self.tower == "both" else (self.tower,)

    def __str__(self) -> str:
        return f"{self.tower}:{self.layers}:{','.join(self.projections)}"


class Weight(Protocol):
    """What a placement says of a weight."""

    @property
    def tower(self) -> str: ...  # noqa: D102
    @property
    def layer(self) -> int: ...  # noqa: D102
    @property
    def projection(self) -> str: ...  # noqa: D102


def pieces_of(spec: AdapterSpec) -> tuple[Piece, ...]:
    """Where a spec says that the adapter sits.

    ``auto`` is chosen by gradients later and takes its budget from what the spec would mean without it, which this
    gives.

    Raises:
        AdapterError: If the text of a placement cannot be read.
    """
    if spec.placement in (None, AUTO):
        return (Piece(spec.tower, spec.layers, spec.projections),)
    return read_placement(spec.placement)


def read_placement(text: str) -> tuple[Piece, ...]:
    """The pieces of a placement.

    Raises:
        AdapterError: Listing every piece that cannot be read.
    """
    pieces, wrong = [], []
    for part in (part.strip() for part in text.split(";")):
        words = [word.strip() for word in part.split(":")]
        tower, layers, projections = (*[*words, ""][:2], "*") if len(words) < 3 else words[:3]
        patterns = tuple(pattern.strip() for pattern in projections.split(","))
        if tower not in (*TOWERS, "both"):
            wrong.append(f"'{part}' names no tower (vision, text or both)")
        elif len(words) > 3 or not layers or not all(patterns):
            wrong.append(f"'{part}' is not TOWER:LAYERS:PROJECTIONS")
        else:
            pieces.append(Piece(tower, layers, patterns))
    if wrong:
        raise AdapterError(
            f"placement: {listed(wrong, '; ')}; write auto, or pieces such as vision:6-7:mlp.* joined by ';'"
        )
    return tuple(pieces)


def write_placement(chosen: Iterable[Weight], everything: Iterable[Weight]) -> str:
    """The text that means exactly some weights; the same weights always have the same text.

    Args:
        chosen: At least one weight.
        everything: All weights of the model that an adapter could sit on, so that a whole layer is called ``*``.
    """
    whole, own = _by_layer(everything), _by_layer(chosen)
    alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for tower, layer in sorted(own, key=lambda place: (TOWERS.index(place[0]), place[1])):
        names = tuple(own[tower, layer])
        patterns = ("*",) if set(names) == set(whole[tower, layer]) else names
        alike.setdefault((tower, patterns), []).append(layer)
    return ";".join(str(Piece(tower, _runs(layers), names)) for (tower, names), layers in alike.items())


def _by_layer(weights: Iterable[Weight]) -> Mapping[tuple[str, int], dict[str, None]]:
    found: dict[tuple[str, int], dict[str, None]] = {}
    for weight in weights:
        found.setdefault((weight.tower, weight.layer), {})[weight.projection] = None
    return found


def _runs(layers: Sequence[int]) -> str:
    """Rising numbers as ``0,2-4``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
