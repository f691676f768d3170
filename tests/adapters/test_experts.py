import pytest
import torch
from torch import nn

from kusabi.adapters.attach import attached
from kusabi.adapters.bottleneck_birth import fresh
from kusabi.adapters.bottleneck_form import Form
from kusabi.adapters.experts import active_expert, shared_out
from kusabi.adapters.prune import Pruning

WIDTH, SIZE, EXPERTS = 12, 6, 4
INPUTS = torch.linspace(-3, 3, 10 * WIDTH).sin().view(10, WIDTH)


def mosa(seed=0, pruning=None, init="kaiming", **form):
    module = nn.Sequential(nn.Identity(), nn.Identity())
    for one in module:
        one.weight = nn.Parameter(torch.zeros(WIDTH), requires_grad=False)  # says the width
    form = Form(widths={"0": WIDTH, "1": WIDTH}, size=SIZE, activation="gelu", experts=EXPERTS, seed=seed, **form)
    return module, fresh(form, pruning, init)


def taught(part):
    part.values.data = torch.randn(len(part), generator=torch.Generator().manual_seed(7)) * 0.5
    return part


def dense(part, name, shape):
    whole = torch.zeros(shape)
    own = part.slices[name]
    whole.view(-1)[part.indices[own].long()] = part.values.data[own]
    return whole


def test_shares_are_disjoint_equal_and_all():
    owners = shared_out(103, 4, 0, "w")
    assert owners.bincount().tolist() == [26, 26, 26, 25] and owners.dtype == torch.int8
    assert torch.equal(owners, shared_out(103, 4, 0, "w"))
    for other in (shared_out(103, 4, 1, "w"), shared_out(103, 4, 0, "v")):
        assert not torch.equal(owners, other)
    assert len(shared_out(0, 4, 0, "w")) == 0 and shared_out(2, 4, 0, "w").tolist() in ([0, 2], [2, 0])


def test_the_active_expert_is_uniform_and_each_tensor_draws_alone():
    draws = torch.tensor([[active_expert(4, 0, step, 0, name) for step in range(800)] for name in ("a", "b")])
    assert all(150 < count < 250 for row in draws for count in row.bincount(minlength=4).tolist())
    assert 0.15 < (draws[0] == draws[1]).float().mean() < 0.35
    assert [active_expert(4, 0, step, 0, "a") for step in range(800)] == draws[0].tolist()
    assert [active_expert(4, 0, step, 1, "a") for step in range(800)] != draws[0].tolist()


def one_expert(part, point, expert, inputs, down=None, bias=True):
    # An independent expert: the shared down and its own share of up.
    owners = shared_out(part.counts[part.names.index(f"{point}.up")], EXPERTS, part.form.seed, f"{point}.up")
    mask = torch.zeros(WIDTH * SIZE)
    mask[part.indices[part.slices[f"{point}.up"]].long()] = (owners == expert).float()
    up = dense(part, f"{point}.up", (WIDTH, SIZE)) * mask.view(WIDTH, SIZE)
    down = dense(part, f"{point}.down", (SIZE, WIDTH)) if down is None else down
    inner = nn.functional.gelu(inputs @ down.T + dense(part, f"{point}.down_bias", (SIZE,)))
    return part.form.scale * (inner @ up.T + (dense(part, f"{point}.up_bias", (WIDTH,)) if bias else 0))


def test_training_uses_one_expert_a_point_and_teaches_its_share_alone():
    module, part = mosa(scale=0.1)
    taught(part)
    assert part.forwards == 2
    used = set()
    with attached(module, part):
        for number in range(40):
            part.draw(5, 1, number)
            active = [active_expert(EXPERTS, 5, 1, number, f"{point}.up") for point in "01"]
            used.add(tuple(active))
            wanted = INPUTS
            for point, expert in zip("01", active, strict=True):
                wanted = wanted + one_expert(part, point, expert, wanted)
            answer = module(INPUTS)
            assert torch.allclose(answer, wanted, atol=1e-5)
            part.values.grad = None
            answer.square().sum().backward()
            for point, expert in zip("01", active, strict=True):
                learned = part.values.grad[part.slices[f"{point}.up"]] != 0
                assert torch.equal(learned, shared_out(WIDTH * SIZE, EXPERTS, 0, f"{point}.up") == expert)
                assert bool(part.values.grad[part.slices[f"{point}.down"]].any())
    assert len(used) > 10


@pytest.mark.parametrize("pruning", [None, Pruning("magnitude", 0.5)])
def test_evaluation_is_the_exact_sum_of_the_experts_with_down_and_biases_once(pruning):
    module, part = mosa(pruning=pruning)
    taught(part)
    with attached(module, part):
        answer = module[0](INPUTS) - INPUTS
        part.draw(0, 0, 0)
        with torch.no_grad():
            assert torch.equal(module[0](INPUTS) - INPUTS, answer), "no draw without gradients"
        part.settle(0.0, 0.0)
        assert torch.equal(module[0](INPUTS) - INPUTS, answer)
    experts = [one_expert(part, "0", e, INPUTS, bias=e == 0) for e in range(EXPERTS)]
    assert torch.allclose(answer, sum(experts), atol=1e-5)
    # Trap: a merge that sums whole experts counts the bias of up once for each.
    whole = sum(one_expert(part, "0", e, INPUTS) for e in range(EXPERTS))
    bias = dense(part, "0.up_bias", (WIDTH,))
    assert torch.allclose(whole - answer, (EXPERTS - 1) * bias.expand(10, -1), atol=1e-4)
    assert not torch.allclose(whole, answer, atol=0.1)
    # Trap: down is not zero at birth; summed over copies it would no longer be the experts' own.
    summed = EXPERTS * dense(part, "0.down", (SIZE, WIDTH))
    copies = sum(one_expert(part, "0", e, INPUTS, summed, e == 0) for e in range(EXPERTS))
    assert not torch.allclose(copies, answer, atol=0.1)


def test_at_birth_down_is_drawn_once_and_every_draw_changes_nothing():
    module, part = mosa()
    bound = WIDTH**-0.5
    for point in "01":
        down = part.values.data[part.slices[f"{point}.down"]]
        assert bound * 0.8 < down.abs().max() <= bound and not bool(part.values.data[part.slices[f"{point}.up"]].any())
    with attached(module, part):
        for number in range(4):
            part.draw(0, 0, number)
            assert torch.equal(module(INPUTS), INPUTS)


def test_one_expert_is_an_ordinary_bottleneck():
    module, part = mosa()
    plain = fresh(part.form.model_copy(update={"experts": 1}))
    assert plain.forwards == 1
    taught(plain)
    with attached(module, plain):
        answer = module(INPUTS)
        plain.draw(0, 0, 0)
        assert torch.equal(module(INPUTS), answer)
