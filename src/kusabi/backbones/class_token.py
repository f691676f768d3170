"""The last vision block for its class token alone, where the tower pools no other.

Keys and values need all tokens; the query, what attention gives, and everything behind it need one. Rows of the other
tokens hold nothing of use then, and no gradient comes from them. The class token's row and all gradients are those of
the whole block but for rounding: two kernels, one arithmetic.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kusabi.backbones.backbone import Backbone

# Names of a block's attention, and of the norm behind it; pre-norm blocks with separate projections, all of them.
_LAYOUTS = (("self_attn", "layer_norm2"), ("attention", "norm2"), ("attention", "layernorm_after"))


@contextmanager
def class_token_alone(backbone: Backbone) -> Iterator[bool]:
    """Forwards inside compute in the last vision block what its class token needs; whether that can be done at all.

    Changes the module while it lasts, so one thread at a time. Hooks of the module's parts see one token behind the
    attention.
    """
    found = _layout(backbone)
    with ExitStack() as stack:
        if found:
            attention, norm = found
            stack.callback(vars(attention).pop, "forward", None)  # even where Ctrl-C came before it was set
            attention.forward = _asked_once(attention)
            stack.callback(norm.register_forward_pre_hook(lambda _norm, args: (args[0][:, :1],)).remove)
        yield found is not None


def _layout(backbone: Backbone) -> tuple[Any, nn.Module] | None:
    if not backbone.class_token or not backbone.blocks["vision"]:
        return None
    block = backbone.module.get_submodule(backbone.blocks["vision"][-1])
    for attention, norm in _LAYOUTS:
        inner = getattr(block, attention, None)
        if hasattr(block, norm) and all(hasattr(inner, f"{name}_proj") for name in "qkv"):
            return inner, getattr(block, norm)
    return None


def _asked_once(attention: Any) -> Callable[..., tuple[Tensor, None]]:
    """Attention ``(B, tokens, D) -> (B, 1, D)`` with the first token's query."""
    out = getattr(attention, "out_proj", None) or attention.o_proj

    def forward(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, None]:
        shape = (len(hidden_states), -1, attention.q_proj.out_features // attention.head_dim, attention.head_dim)
        query = attention.q_proj(hidden_states[:, :1]).view(shape).transpose(1, 2)
        keys, values = (
            proj(hidden_states).view(shape).transpose(1, 2) for proj in (attention.k_proj, attention.v_proj)
        )
        weights = torch.softmax(query @ keys.mT * attention.head_dim**-0.5, dim=-1, dtype=torch.float32)
        return out((weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)), None

    return forward
