import copy

import pytest
import torch
from torch import nn

from kusabi.adapters.attach import attached
from kusabi.adapters.merged_training import dense_gradients, working_copy
from kusabi.adapters.sparse_delta import SparseDelta

FUSED, UP = "vision.3.self_attn.in_proj_weight", "vision.2.linear1.weight"
PICTURES = torch.linspace(-1, 1, 96).sin().view(4, 3, 8)


def fresh_delta(k=24):
    delta = SparseDelta({FUSED: torch.arange(0, 7 * k, 7), UP: torch.arange(1, k + 1)})
    delta.values.data = torch.linspace(-0.3, 0.3, 2 * k)
    return delta


def loss_of(module, pictures):
    embedded = module["vision"](pictures)
    return (embedded * torch.arange(24.0).sin().view(3, 8).to(embedded.dtype)).sum()


def masked_dense_gradients(module, delta, pictures):
    with attached(module, delta):
        merged = copy.deepcopy(module).requires_grad_(True)
    loss_of(merged, pictures).backward()
    dense = {name: merged.get_parameter(name).grad for name in delta.names}
    return torch.cat([dense[name].flatten()[indices.long()] for name, indices, _ in delta.parts()]), dense


@pytest.mark.parametrize("micro_batch", [4, 1])
def test_gradients_equal_the_masked_dense_ones_micro_batches_add_up_and_none_is_kept(towers, micro_batch):
    module, delta = towers(), fresh_delta()
    wanted, _ = masked_dense_gradients(module, delta, PICTURES)
    with working_copy(module, delta):
        for pictures in PICTURES.split(micro_batch):
            loss_of(module, pictures).backward()
            assert all(parameter.grad is None for parameter in module.parameters())
    assert float(wanted.abs().median()) > 1e-3
    torch.testing.assert_close(delta.values.grad, wanted, rtol=1e-4, atol=1e-5)


def test_the_forward_in_training_is_the_forward_attached_bitwise_after_every_fold(towers):
    module, delta = towers(), fresh_delta()
    with working_copy(module, delta) as copied:
        for _ in range(2):
            trained = module["vision"](PICTURES)
            plain = towers()
            for name in delta.names:  # torch takes other kernels where nothing needs a gradient
                plain.get_parameter(name).requires_grad_(True)
            with attached(plain, delta):
                assert torch.equal(trained, plain["vision"](PICTURES))
            delta.values.data.mul_(-2.0)
            copied.fold()


@pytest.mark.parametrize("raised", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_leaving_returns_the_very_same_frozen_tensors_and_flags(towers, digest, dtype, raised):
    module, delta = towers(dtype=dtype), fresh_delta()
    module.get_parameter(UP).requires_grad_(True)
    flags = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    places = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    before = digest(module)
    try:
        with working_copy(module, delta) as copied:
            copied_aside = module.get_parameter(FUSED).data_ptr() != places[FUSED]
            assert copied_aside == (dtype != torch.float32)  # fp32 is its own working copy
            module.get_parameter(FUSED).sum().backward()
            delta.values.data.add_(1.0)
            copied.fold()
            assert digest(module) != before
            if raised:
                raise raised
    except BaseException as error:
        assert type(error) is raised
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == places
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == flags
    assert digest(module) == before
    gathered = delta.values.grad.clone()
    module.get_parameter(UP).sum().backward()  # the hook is gone: gradients stay where torch puts them
    assert module.get_parameter(UP).grad is not None and torch.equal(delta.values.grad, gathered)


def test_a_bf16_weight_swallows_a_small_value_that_its_working_copy_keeps():
    linear = nn.Linear(4, 1, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    linear.weight.data.fill_(1.0)
    delta = SparseDelta({"weight": torch.arange(4)})
    delta.values.data.fill_(1e-3)
    with attached(linear, delta):
        assert bool((linear.weight == 1.0).all())
    with working_copy(linear, delta) as copied:
        assert linear.weight.dtype == torch.float32
        assert torch.equal(linear.weight, torch.full((1, 4), 1.0) + 1e-3)
        for _ in range(10):  # ten steps, each too small for bf16, add up
            linear(torch.ones(1, 4)).sum().backward()
            delta.values.data += 1e-3 * delta.values.grad
            delta.values.grad = None
            copied.fold()
        assert torch.allclose(linear.weight, torch.tensor(1.011), atol=1e-6)
    assert linear.weight.dtype == torch.bfloat16


def test_one_autocast_context_hides_a_fold_and_one_for_each_forward_sees_it():
    linear = nn.Linear(4, 4, bias=False).requires_grad_(False)
    delta, pictures = SparseDelta({"weight": torch.arange(16)}), torch.ones(1, 4)
    with working_copy(linear, delta) as copied:
        with torch.autocast("cpu", torch.bfloat16):
            first = linear(pictures)
            delta.values.data.add_(1.0)
            copied.fold()
            assert torch.equal(linear(pictures), first), "autocast no longer keeps its copy: the rule can be dropped"
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(linear(pictures), first + 4.0, atol=0.05)
        delta.values.data.add_(1.0)
        copied.fold()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(linear(pictures), first + 8.0, atol=0.1)


def test_a_weight_that_is_not_contiguous_trains_at_its_logical_positions(digest):
    linear = nn.Linear(3, 2, bias=False).requires_grad_(False)
    linear.weight.data = torch.arange(6.0).view(3, 2).t()
    before, delta = digest(linear), SparseDelta({"weight": torch.tensor([1, 3])})
    delta.values.data = torch.tensor([10.0, 20.0])
    with working_copy(linear, delta):
        assert linear.weight.tolist() == [[0, 12, 4], [21, 3, 5]]
        (linear.weight * torch.arange(6.0).view(2, 3)).sum().backward()
    assert delta.values.grad.tolist() == [1, 3]
    assert digest(linear) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_leaves_a_support_is_the_frozen_value_again_to_the_bit_and_what_enters_is_trained(towers, digest, dtype):
    module, delta = towers(dtype=dtype), fresh_delta()  # every fifth entry is -0.0
    before = digest(module)
    frozen = {name: module.get_parameter(name).detach().float().flatten().clone() for name in delta.names}
    with working_copy(module, delta) as copied:
        kept = torch.cat([frozen[FUSED].new_tensor([0.5]), torch.zeros(3)])
        delta.place([1, 3], torch.tensor([7, 0, 5, 100]), kept)
        copied.follow()
        for name, moved in ((FUSED, 7), (UP, None)):
            weight, wanted = module.get_parameter(name).detach().flatten(), frozen[name].clone()
            if moved is not None:
                wanted[moved] += 0.5
            assert torch.equal(weight.view(torch.int32), wanted.view(torch.int32))
        delta.values.data.fill_(2.0)
        copied.fold()
        assert torch.equal(module.get_parameter(UP).flatten()[[0, 5, 100]], frozen[UP][[0, 5, 100]] + 2.0)
        module.get_parameter(UP).sum().backward()
        assert delta.values.grad.tolist() == [0, 1, 1, 1]
    assert digest(module) == before


def test_each_backward_shows_every_dense_gradient_once(towers):
    module, delta, seen = towers(), fresh_delta(), []
    with working_copy(module, delta, watch=lambda name, dense: seen.append((name, dense.clone()))):
        loss_of(module, PICTURES).backward()
        assert sorted(name for name, _ in seen) == sorted(delta.names)
        for name, dense in seen:
            wanted = dense.flatten()[delta.indices[delta.slices[name]].long()]
            assert dense.shape == module.get_parameter(name).shape
            assert torch.equal(delta.values.grad[delta.slices[name]], wanted)
        loss_of(module, PICTURES).backward()
    assert len(seen) == 4


def test_dense_gradients_add_up_in_fp32_and_leave_flags_and_weights_alone(towers, digest):
    module, names = towers(), (FUSED, UP)
    before = digest(module)
    _, wanted = masked_dense_gradients(module, SparseDelta({name: torch.tensor([0]) for name in names}), PICTURES)
    with pytest.raises(KeyboardInterrupt), dense_gradients(module, names) as collected:
        for pictures in PICTURES.split(2):
            loss_of(module, pictures).backward()
            assert all(parameter.grad is None for parameter in module.parameters())
        raise KeyboardInterrupt
    torch.testing.assert_close(collected, wanted, rtol=1e-4, atol=1e-5)
    assert digest(module) == before and not any(parameter.requires_grad for parameter in module.parameters())
    half = towers(dtype=torch.bfloat16)
    with dense_gradients(half, (UP,)) as collected:
        loss_of(half, PICTURES.bfloat16()).backward()
    assert collected[UP].dtype == torch.float32
