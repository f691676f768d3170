import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.peers.descent import Group, descend, seeded
from benchmarks.peers.settings import Setting
from kusabi.errors import AdapterError


def test_updates_are_those_of_adamw_with_a_cosine_written_out(material):
    setting = Setting(0.1, 0.5, "here", epsilon=1e-3)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    target = torch.tensor([3.0, 0.5], dtype=torch.float64)
    before, after = [], []
    losses = descend(
        "x", replace(material, steps=5), [Group([parameter], setting)], lambda rows: ((parameter - target) ** 2).sum(),
        before_update=lambda: before.append(parameter.grad.clone()), after_update=lambda: after.append(parameter.grad),
    )  # fmt: skip
    x, mean, square = torch.tensor([1.0, -2.0], dtype=torch.float64), 0.0, 0.0
    for step in range(5):
        assert losses[step] == pytest.approx(float(((x - target) ** 2).sum()))
        slope, rate = 2 * (x - target), 0.1 * 0.5 * (1 + math.cos(math.pi * step / 5))
        assert torch.allclose(before[step], slope)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        step_size = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-3)
        x = x * (1 - rate * 0.5) - rate * step_size
    assert torch.allclose(parameter.data, x) and after == [None] * 5


def test_a_loss_that_is_not_finite_names_method_and_step(material):
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(AdapterError, match=r"LN: the loss of step 1 is not finite; lower its rate"):
        descend("LN", material, [Group([parameter], Setting(1.0, 0.0, ""))], lambda rows: parameter.sum() * math.nan)


def test_random_draws_follow_the_material_and_leave_the_global_state_alone(material):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    with seeded(material):
        first = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(material):
        assert torch.equal(torch.rand(3), first)
