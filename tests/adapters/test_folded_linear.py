import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kusabi.adapters.attach import attached
from kusabi.adapters.folded_linear import folded_linear, folded_weight, joined
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support

ROWS, COLUMNS, K = 5, 7, 11


def layer(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    plain = nn.Linear(COLUMNS, ROWS).to(dtype).requires_grad_(False)
    plain.weight.data.view(-1)[::4] = -0.0
    return plain


def delta_of(k=K, seed=0):
    delta = SparseDelta({"weight": random_support(ROWS * COLUMNS, k, seed, "weight")})
    delta.values.data = torch.randn(k, generator=torch.Generator().manual_seed(seed))
    delta.values.data[0] = 0.0
    return delta


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_outputs_are_bitwise_those_of_the_attached_layer(dtype, transposed):
    plain, delta = layer(dtype), delta_of()
    if transposed:
        plain.weight.data = plain.weight.data.T.contiguous().T
    before = plain.weight.data.clone()
    inputs = torch.randn(2, 3, COLUMNS).to(dtype)
    part = (delta.indices, delta.values)
    found, weight = folded_linear(inputs, plain.weight, plain.bias, part), folded_weight(plain.weight, part)
    assert torch.equal(bits(plain.weight), bits(before)) and found.dtype == dtype and not torch.equal(weight, before)
    with attached(plain, delta):
        assert torch.equal(bits(weight), bits(plain.weight))
        assert torch.equal(bits(found), bits(F.linear(inputs, plain.weight.contiguous(), plain.bias)))


def test_two_parts_of_one_weight_are_what_two_attached_deltas_are():
    plain, one, two = layer(), delta_of(), delta_of(20, seed=1)
    assert set(one.indices.tolist()) & set(two.indices.tolist()) and len(one) != len(two)
    part = joined([(delta.indices, delta.values) for delta in (one, two)])
    inputs = torch.randn(3, COLUMNS)
    folded = folded_linear(inputs, plain.weight, plain.bias, part)
    folded.square().sum().backward()
    with attached(plain, one, two):
        assert torch.equal(folded, plain(inputs))
    for delta in (one, two):
        shared = torch.cat([(i == delta.indices).nonzero().flatten() for i in part[0]])
        assert len(shared) == len(delta) and delta.values.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_dense_layer(dtype):
    plain, delta = layer(dtype), delta_of()
    inputs = torch.randn(2, 3, COLUMNS, dtype=dtype)
    pull = torch.randn(2, 3, ROWS, dtype=dtype)

    def gradients(weight, answer):
        given = inputs.clone().requires_grad_()
        bias = plain.bias.clone().requires_grad_()
        (answer(given, weight, bias) * pull).sum().backward()
        return given.grad, bias.grad

    with attached(plain, delta):
        dense = plain.weight.clone().requires_grad_()
    of_inputs, of_bias = gradients(dense, F.linear)
    frozen = plain.weight.clone().requires_grad_()
    part = (delta.indices, delta.values)
    found = gradients(frozen, lambda x, w, b: folded_linear(x, w, b, part))
    torch.testing.assert_close(found, (of_inputs, of_bias))
    torch.testing.assert_close(frozen.grad, dense.grad)
    wanted = dense.grad.flatten()[delta.indices.long()].float()
    torch.testing.assert_close(delta.values.grad, wanted)
    assert wanted[0] != 0, "an entry of value zero learns too"


def test_nothing_of_the_size_of_the_weight_is_kept_for_the_backward_pass():
    plain, delta = nn.Linear(64, 96).requires_grad_(False), SparseDelta({"weight": torch.arange(0, 6144, 200)})
    kept = []

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() != plain.weight.untyped_storage().data_ptr():
            kept.append(tensor.numel())
        return tensor

    inputs = torch.randn(2, 64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        folded_linear(inputs, plain.weight, plain.bias, (delta.indices, delta.values))
    assert sorted(kept) == [len(delta), len(delta), inputs.numel()]


def test_autocast_is_that_of_a_plain_layer():
    plain, delta = layer(), delta_of()
    inputs = torch.randn(3, COLUMNS).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = folded_linear(inputs, plain.weight, plain.bias, (delta.indices, delta.values))
        with attached(plain, delta):
            assert found.dtype == torch.bfloat16 and torch.equal(found, plain(inputs))
    again = folded_linear(inputs, plain.weight, plain.bias, (delta.indices, delta.values))
    assert again.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        folded_linear(inputs, plain.weight, plain.bias, (delta.indices, delta.values)).sum().backward()
    assert inputs.grad.dtype == torch.float32 and delta.values.grad.dtype == torch.float32
    wanted = inputs.detach().sum(0).bfloat16().float()[delta.indices.long() % COLUMNS]
    torch.testing.assert_close(delta.values.grad, wanted, rtol=2e-2, atol=2e-2)


def test_a_second_derivative_is_refused_and_not_wrong():
    plain, delta = layer(), delta_of()
    inputs = torch.randn(3, COLUMNS).requires_grad_()
    found = folded_linear(inputs, plain.weight, plain.bias, (delta.indices, delta.values)).square().sum()
    (gradient,) = torch.autograd.grad(found, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own way to trace it
def test_it_compiles_whole():
    plain, delta = layer(), delta_of()
    part = (delta.indices, delta.values)
    inputs = torch.randn(3, COLUMNS)

    def answer(given):
        return folded_linear(given, plain.weight, plain.bias, part)

    compiled = torch.compile(answer, backend="eager", fullgraph=True)(inputs)
    assert torch.equal(compiled, answer(inputs))
    compiled.sum().backward()
    assert delta.values.grad.abs().sum() > 0
