"""What a layer's backward pass needs to know its input again, from tensors that the input's own backward keeps anyway.

The output of an activation function is as wide as a block gets, and is kept for one layer alone. Recomputing cheap
operations instead of keeping what they gave is selective recomputation (arXiv 2205.05198, section 5).
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

LEAST = 4 * 2**20  # bytes: smaller inputs are not what fills a memory, and stay

Recipe = tuple[Sequence[Tensor], Callable[..., Tensor]]


def recipe(input: Tensor) -> Recipe:
    """Tensors and the function that makes the input of them, bitwise; the input itself where that frees nothing.

    Understood are GELU, SiLU, and products of two tensors, as in CLIP's ``x * sigmoid(1.702 x)`` and gated blocks.
    """
    node: Any = input.grad_fn
    if node is None or input.numel() * input.element_size() < LEAST:
        return (input,), _itself
    match node.name():
        case "GeluBackward0":
            approximate = node._saved_approximate
            sources, made = (node._saved_self,), lambda x: F.gelu(x, approximate=approximate)
        case "SiluBackward0":
            sources, made = (node._saved_self,), F.silu
        case "MulBackward0" if _tensors(node._saved_self, node._saved_other):
            sources, made = (node._saved_self, node._saved_other), _product
        case _:
            return (input,), _itself
    return tuple(source.detach() for source in sources), made


def _tensors(*saved: Any) -> bool:
    return all(isinstance(tensor, Tensor) for tensor in saved)


def _itself(input: Tensor) -> Tensor:
    return input


def _product(one: Tensor, other: Tensor) -> Tensor:
    return one * other
