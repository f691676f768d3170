"""Where every tensor of an adapter's parts belongs: tower, layer, place in the layer, positions, entries."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from kusabi.adapters.part import AdapterPart
from kusabi.adapters.targets import Plan, Target


def outline(module: nn.Module, blocks: Mapping[str, Sequence[str]], parts: Sequence[AdapterPart]) -> Plan:
    """The tensors of all parts, in their order: those of the backbone that are trained in part, and new ones whole.

    Args:
        module: The frozen model.
        blocks: Tower -> dotted names of its blocks.
        parts: What is trained.
    """
    weights = dict(module.named_parameters())
    return Plan(tuple(target for part in parts for target in _targets(part, weights, blocks)))


def _targets(
    part: AdapterPart, weights: Mapping[str, nn.Parameter], blocks: Mapping[str, Sequence[str]]
) -> Iterator[Target]:
    for name, entries in zip(part.names, part.counts, strict=True):
        tower, layer, block = _block_of(name, blocks)
        size = part.sizes.get(name) or weights[name].numel()
        yield Target(name, tower, layer, name.removeprefix(f"{block}."), size, entries)


def _block_of(name: str, blocks: Mapping[str, Sequence[str]]) -> tuple[str, int, str]:
    return next(
        (tower, layer, block)
        for tower, names in blocks.items()
        for layer, block in enumerate(names)
        if name.startswith(f"{block}.")
    )
