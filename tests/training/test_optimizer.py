import pytest
import torch
from torch import nn

from kusabi.training.optimizer import FlatAdamW


def step(optimizer, gradient, rate=0.01):
    optimizer.parameter.grad = gradient.clone()
    optimizer.step(rate)


def test_it_follows_torchs_adamw():
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    own, reference = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, peer = FlatAdamW(own, decay=0.1), torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1)
    for seed in range(20):
        gradient = torch.randn(50, generator=torch.Generator().manual_seed(seed))
        step(optimizer, gradient)
        reference.grad = gradient
        peer.step()
    assert torch.allclose(own, reference, atol=1e-6)


def test_a_late_entry_starts_with_a_step_of_one_learning_rate():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = FlatAdamW(parameter)
    for _ in range(10):
        step(optimizer, torch.ones(2))
    optimizer.age[1] = 0
    optimizer.mean[1] = optimizer.square[1] = 0
    before = parameter.data.clone()
    step(optimizer, torch.ones(2))
    assert (before - parameter.data)[1].item() == pytest.approx(0.01, rel=1e-4)


def test_the_gradient_is_freed_and_without_one_nothing_happens():
    parameter = nn.Parameter(torch.ones(3))
    optimizer = FlatAdamW(parameter)
    step(optimizer, torch.ones(3))
    assert parameter.grad is None
    before = parameter.data.clone()
    optimizer.step(0.01)
    assert torch.equal(before, parameter.data) and optimizer.age.tolist() == [1, 1, 1]


def test_a_restored_optimizer_goes_on_bitwise():
    gradients = [torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    whole, halves = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))
    optimizer, first = FlatAdamW(whole), FlatAdamW(halves)
    for gradient in gradients:
        step(optimizer, gradient)
    for gradient in gradients[:3]:
        step(first, gradient)
    second = FlatAdamW(halves)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    for gradient in gradients[3:]:
        step(second, gradient)
    assert torch.equal(whole, halves)


def test_a_state_of_another_number_of_entries_is_taken_and_not_shared():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = FlatAdamW(parameter)
    saved = {"mean": torch.ones(3), "square": torch.ones(3), "age": torch.ones(3, dtype=torch.int32)}
    optimizer.restore(saved)
    parameter.data = torch.zeros(3)
    step(optimizer, torch.ones(3))
    assert optimizer.age.tolist() == [2, 2, 2] and optimizer.age.dtype == torch.int32
    assert saved["mean"].tolist() == [1, 1, 1] and optimizer.mean.shape == (3,)
