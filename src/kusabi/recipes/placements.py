"""Which placements an ablation tries: by family, each named by the weights it means."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kusabi.adapters.placement import TOWERS, write_placement
from kusabi.adapters.targets import Target, everything, plan
from kusabi.backbones.backbone import Backbone
from kusabi.errors import SpecError
from kusabi.spec import AdapterSpec

FAMILIES = ("in", "out", "top", "bottom", "projections", "towers")
DEFAULT = "default"


@dataclass(frozen=True)
class Trial:
    """One placement under one name: ``label`` says which of its family.

    Layer numbers count from 0 at the bottom: ``in`` and ``out`` name the layer, ``top`` and ``bottom`` how many.
    """

    family: str
    tower: str
    label: str
    placement: str


@dataclass(frozen=True)
class Trials:
    """What is tried at ``budget`` entries each; ``left_out`` are those whose weights are fewer than that.

    Every placement is named by all the weights that it means, also by those that a small budget gives no entry: that
    name leads ``adapt`` to the same training.
    """

    default: str
    budget: int
    trials: tuple[Trial, ...]
    left_out: tuple[Trial, ...]

    @property
    def placements(self) -> tuple[str, ...]:
        """Each once: the same weights under two names are one training."""
        return tuple(dict.fromkeys([self.default, *(trial.placement for trial in self.trials)]))


def trials_of(backbone: Backbone, spec: AdapterSpec, families: Sequence[str]) -> Trials:
    """The trials of some families around the placement of a spec, at its number of entries.

    Raises:
        SpecError: If a family is not known.
        AdapterError: If the spec's placement means no weight.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise SpecError(f"--trials {','.join(unknown)}: not known; write some of {','.join(FAMILIES)}")
    whole = everything(backbone.module, backbone.blocks)
    budget = plan(backbone.module, backbone.blocks, spec).entries
    # The plan at that budget leaves out weights without an entry; what was asked for is every weight that is meant.
    default = plan(backbone.module, backbone.blocks, spec.model_copy(update={"budget": None, "density": 1.0})).targets
    tried, small = [], []
    for family in FAMILIES:
        for tower, label, targets in _FAMILIES[family](whole.targets, default) if family in families else ():
            trial = Trial(family, tower, label, write_placement(targets, whole.targets))
            (tried if sum(target.size for target in targets) >= budget else small).append(trial)
    return Trials(write_placement(default, whole.targets), budget, tuple(tried), tuple(small))


Found = Iterator[tuple[str, str, list[Target]]]


def _one_in(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    for tower, layer in _layers(whole):
        yield tower, str(layer), _those(whole, tower, lambda at, layer=layer: at == layer)


def _one_out(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    """Of the whole tower, where more than one layer is left."""
    layers = _layers(whole)
    for tower, layer in layers:
        if sum(name == tower for name, _ in layers) > 2:
            yield tower, str(layer), _those(whole, tower, lambda at, layer=layer: at != layer)


def _from_the_top(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    layers = _layers(whole)
    for tower in TOWERS:
        depth = sum(name == tower for name, _ in layers)
        for count in range(1, depth + 1):
            yield tower, str(count), _those(whole, tower, lambda at, low=depth - count: at >= low)


def _from_the_bottom(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    for tower, layer in _layers(whole):
        yield tower, str(layer + 1), _those(whole, tower, lambda at, layer=layer: at <= layer)


def _projections(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    """Each kind of weight alone, in the layers of the default."""
    for tower, projection in dict.fromkeys((t.tower, t.projection) for t in default):
        yield tower, projection, [t for t in default if (t.tower, t.projection) == (tower, projection)]


def _towers(whole: Sequence[Target], default: Sequence[Target]) -> Found:
    """The upper half of either tower and of both."""
    layers = _layers(whole)
    depth = {tower: sum(name == tower for name, _ in layers) for tower in TOWERS}
    upper = [target for target in whole if target.layer >= depth[target.tower] // 2]
    for tower in TOWERS:
        yield tower, "upper-half", [target for target in upper if target.tower == tower]
    yield "both", "upper-half", upper


_FAMILIES: dict[str, Callable[[Sequence[Target], Sequence[Target]], Found]] = {
    "in": _one_in, "out": _one_out, "top": _from_the_top, "bottom": _from_the_bottom, "projections": _projections,
    "towers": _towers,
}  # fmt: skip


def _layers(whole: Sequence[Target]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((target.tower, target.layer) for target in whole))


def _those(whole: Sequence[Target], tower: str, meant: Callable[[int], bool]) -> list[Target]:
    return [target for target in whole if target.tower == tower and meant(target.layer)]
