"""Where a block of a transformer takes an inserted part: the modules whose outputs enter the residual sums.

Blocks are told by their submodules' names, so that one table serves every family and plain ``nn.TransformerEncoder``s.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from kusabi.errors import AdapterError, listed

Where = Literal["attention", "mlp", "both"]

# Sublayer -> (module whose output enters the residual sum, module that is given the sublayer's input), the first pair
# that a block has. DINOv2 weakens a sublayer's output by a frozen layer scale: what is inserted comes after it. BERT
# adds and normalises inside "output": what is inserted comes after its linear layer.
_SUBLAYERS: dict[str, tuple[tuple[str, str], ...]] = {
    "attention": (
        ("layer_scale1", "attention"),
        ("self_attn", "self_attn"),
        ("attention.output.dense", "attention"),
        ("attention", "attention"),
    ),
    "mlp": (("layer_scale2", "mlp"), ("mlp", "mlp"), ("output.dense", "intermediate"), ("linear2", "linear1")),
}


def insertion_points(module: nn.Module, blocks: Sequence[str], where: Where) -> dict[str, int]:
    """Module paths after which a part is inserted, from bottom to top, each with the width of its output.

    Args:
        module: The model.
        blocks: Dotted names of transformer blocks.
        where: After ``attention``, after the ``mlp`` (Pfeiffer et al., arXiv 2005.00247), or ``both`` (Houlsby et al.,
            arXiv 1902.00751).

    Raises:
        AdapterError: Naming the blocks that are no transformer's, such as those of a convolutional tower.
    """
    points: dict[str, int] = {}
    wrong = [] if blocks else ["no block is named"]
    for block in blocks:
        for sublayer in ("attention", "mlp") if where == "both" else (where,):
            pair = _pair(module, block, sublayer)
            width = None if pair is None else output_width(module.get_submodule(f"{block}.{pair[0]}"))
            if pair is None or width is None:
                found = [name for name, _ in _children(module, block)]
                wrong.append(f"{block}: no {sublayer} found among {listed(found) or 'no modules at all'}")
            else:
                points[f"{block}.{pair[0]}"] = width
    if wrong:
        raise AdapterError(
            f"bottlenecks are inserted into transformer blocks: {listed(wrong, '; ')}; name blocks of a transformer "
            "tower, or choose a kind that adds to weights"
        )
    return points


def source_of(module: nn.Module, point: str) -> str:
    """The module whose input a parallel part at this point reads; the point's own where it is none of a known block."""
    for sublayer, pairs in _SUBLAYERS.items():
        for output, source in pairs:
            block = point.removesuffix(f".{output}")
            if block != point and _pair(module, block, sublayer) == (output, source):
                return f"{block}.{source}"
    return point


def output_width(module: nn.Module) -> int | None:
    """Features of a module's output: those of its last linear layer; None where nothing tells."""
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if linears:
        return linears[-1].out_features
    own = [parameter for parameter in module.parameters() if parameter.ndim == 1]  # layer scale, layer norm
    return own[0].numel() if own else None


def input_width(module: nn.Module) -> int | None:
    """Features of a module's input: those of its first linear layer; None where nothing tells."""
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return linears[0].in_features if linears else output_width(module)


def submodule(module: nn.Module, path: str) -> Any:
    """The module at a dotted path, or None."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _pair(module: nn.Module, block: str, sublayer: str) -> tuple[str, str] | None:
    for pair in _SUBLAYERS[sublayer]:
        if all(submodule(module, f"{block}.{path}") is not None for path in pair):
            return pair
    return None


def _children(module: nn.Module, block: str) -> list[tuple[str, nn.Module]]:
    found = submodule(module, block)
    return [] if found is None else list(found.named_children())
