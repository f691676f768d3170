"""A vision tower cut at a block: the activations entering it, computed once, serve every epoch and seed.

``finish(backbone, enter(backbone, pixels, layer), layer)`` equals ``embed_images(pixels)``, bitwise. Neither knows how
a family computes: ``enter`` runs the model's own path and stops it at the block; ``finish`` runs it with the lower
blocks taken out and the block's input replaced; ``carry`` does both, from one block to a higher one. All change the
module while they run, so one thread at a time.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from kusabi.backbones.backbone import Backbone


class _Reached(Exception):  # noqa: N818  # a signal, no error
    """The block whose input was wanted has been called."""


def enter(backbone: Backbone, pixels: Tensor, layer: int) -> Tensor:
    """Activations entering vision block ``layer``, shape ``(B, tokens, width)`` or ``(B, C, H, W)``; no gradient.

    Args:
        backbone: Whose lower blocks run.
        pixels: As for ``embed_images``.
        layer: Index of the first block that does not run.
    """
    with torch.no_grad(), _stopped(backbone, layer) as caught:
        backbone.embed_images(pixels)
    return caught[0].detach()


def carry(backbone: Backbone, states: Tensor, layer: int, to: int) -> Tensor:
    """Activations entering vision block ``to``, from those entering ``layer``: what ``enter`` gives there, bitwise.

    Args:
        backbone: Whose blocks ``layer`` to ``to - 1`` run.
        states: What ``enter`` gave for ``layer``.
        layer: Index of the first block that runs.
        to: Index of the first block above it that does not run.
    """
    assert layer < to, "states are carried upwards"
    with torch.no_grad(), _stopped(backbone, to) as caught, _cut(backbone, states, layer):
        backbone.embed_images(_stand_in(backbone, states))
    return caught[0].detach()


def finish(backbone: Backbone, states: Tensor, layer: int) -> Tensor:
    """Unit rows ``(B, D)``, float32, as ``embed_images`` gives; differentiable in the weights of blocks from ``layer``.

    Args:
        backbone: Whose upper blocks run.
        states: What ``enter`` gave for this layer; on any device, in any floating type.
        layer: Index of the first block that runs.
    """
    with _cut(backbone, states, layer):
        return backbone.embed_images(_stand_in(backbone, states))


@contextmanager
def _stopped(backbone: Backbone, layer: int) -> Iterator[list[Tensor]]:
    """Forwards inside end where a block is called, whose input is then in the list."""
    caught: list[Tensor] = []

    def catch(_block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = _block(backbone, layer).register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with suppress(_Reached):
            yield caught
    finally:
        hook.remove()


@contextmanager
def _cut(backbone: Backbone, states: Tensor, layer: int) -> Iterator[None]:
    """Forwards inside run from a block on, whose input is replaced by ``states``."""
    block = _block(backbone, layer)
    path, _, name = backbone.blocks["vision"][layer].rpartition(".")[0].rpartition(".")
    owner = backbone.module.get_submodule(path)
    blocks: Any = getattr(owner, name)

    def replace(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        stale = args[0] if args else kwargs["hidden_states"]
        # Autocast casts by itself, and casting before it would round what the model does not round.
        dtype = states.dtype if torch.is_autocast_enabled(stale.device.type) else stale.dtype
        fresh = states.to(stale.device, dtype)
        return ((fresh, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": fresh})

    with ExitStack() as stack:
        stack.callback(block.register_forward_pre_hook(replace, with_kwargs=True).remove)
        stack.callback(setattr, owner, name, blocks)
        setattr(owner, name, blocks[layer:])
        if (embeddings := _embeddings(backbone, path)) is not None and states.dim() == 3:
            stack.callback(vars(embeddings).pop, "forward", None)
            embeddings.forward = lambda *_, **__: _one_token(backbone, states)
        yield


def _embeddings(backbone: Backbone, path: str) -> Any:
    """What turns pixels into tokens, beside the blocks at ``path`` or one level up; None where tokens are counted."""
    if backbone.input_sizes.resizing == "patches":
        return None
    owners = (backbone.module.get_submodule(at) for at in (path, path.rpartition(".")[0]) if at)
    return next((owner.embeddings for owner in owners if hasattr(owner, "embeddings")), None)


def _one_token(backbone: Backbone, states: Tensor) -> Tensor:
    """What stands in for embeddings that nobody reads: convolution and positions would take their time."""
    return torch.zeros(len(states), 1, states.shape[-1], device=backbone.device, dtype=backbone.dtype)


def _block(backbone: Backbone, layer: int) -> nn.Module:
    names = backbone.blocks["vision"]
    assert 0 <= layer < len(names), f"this vision tower has blocks 0 to {len(names) - 1}"
    return backbone.module.get_submodule(names[layer])


def _stand_in(backbone: Backbone, states: Tensor) -> Tensor:
    """The smallest pixels that carry the batch size through the embeddings, whose output is thrown away."""
    sizes = backbone.input_sizes
    side = 8 if sizes.resizing == "any" else sizes.step
    # Towers that are told which patches count build a mask of as many tokens as they see.
    long = side * states.shape[1] if sizes.resizing == "patches" else side
    return torch.zeros(len(states), 3, side, long, device=backbone.device, dtype=backbone.dtype)
