"""Inputs made again: bitwise the same, nothing kept twice, and nothing where it would not pay."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.recomputing import LEAST, recipe

WIDTH = 64
ROWS = LEAST // (4 * WIDTH)


def hidden(rows: int = ROWS, dtype: torch.dtype = torch.float32) -> Tensor:
    inputs = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return (2 * inputs).to(dtype)


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_an_activation_gave_is_made_again_bitwise_from_what_it_keeps(name, dtype):
    before = hidden(2 * ROWS, dtype)
    given = ACTIVATIONS[name](before)
    kept, made = recipe(given)
    assert before.data_ptr() in {tensor.data_ptr() for tensor in kept}
    assert given.data_ptr() not in {tensor.data_ptr() for tensor in kept}
    assert not any(tensor.requires_grad for tensor in kept)
    assert torch.equal(made(*kept), given)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda: F.gelu(hidden(ROWS - 1)), id="small"),
        pytest.param(lambda: F.relu(hidden()), id="keeps its own output"),
        pytest.param(lambda: hidden() * 2, id="a product with a number"),
        pytest.param(lambda: hidden() * torch.ones(WIDTH), id="a factor that needs no gradient"),
        pytest.param(lambda: F.gelu(hidden().detach()), id="no gradient"),
    ],
)
def test_other_inputs_are_kept_themselves(given):
    tensor = given()
    (kept,), made = recipe(tensor)
    assert kept is tensor
    assert made(kept) is tensor
