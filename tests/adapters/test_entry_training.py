"""Training by entries alone: the same forward, the same gradients, the same model afterwards, and no dense gradient."""

import copy

import pytest
import torch
from torch import nn

from kusabi.adapters.entry_training import FEW, MOST, TOKENS, _tokens_last, entry_copy, plain_layers
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.part import gradient_of
from kusabi.adapters.sparse_delta import SparseDelta

WIDE, ROWS, COLUMNS = 2 * TOKENS + 3, 24, 40


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(COLUMNS, ROWS), nn.GELU(), nn.Linear(ROWS, COLUMNS, bias=False))
        .to(dtype)
        .requires_grad_(False)
    )


def delta_of(module: nn.Module) -> SparseDelta:
    random = torch.Generator().manual_seed(1)
    weights = {name: w for name, w in module.named_parameters() if name.endswith("weight")}
    part = SparseDelta(
        {name: torch.randperm(w.numel(), generator=random)[: int(MOST * w.numel())].sort().values
         for name, w in weights.items()}
    )  # fmt: skip
    part.values.data = 0.1 * torch.randn(len(part), generator=random)
    part.values.data[0] = 0
    return part


def layers_of(module: nn.Module, part: SparseDelta) -> dict[str, nn.Linear]:
    layers = plain_layers(module, (part,))
    assert layers
    return layers


def cast(dtype: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


@pytest.mark.parametrize("resident", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_bitwise_those_of_dense_training_and_gradients_are_but_for_rounding(resident, dtype):
    if (resident, dtype) == (torch.bfloat16, torch.float32):
        return  # a half-precision model never trains in fp32
    module = net(resident)
    part, before = delta_of(module), {name: w.clone() for name, w in module.named_parameters()}
    inputs = torch.randn(WIDE, COLUMNS, generator=torch.Generator().manual_seed(2)).to(resident)
    found = []
    for way in (
        lambda: working_copy(module, part),
        lambda: entry_copy(module, part, layers_of(module, part), dtype),
    ):
        part.values.grad = None
        with way():
            with cast(dtype):
                outputs = module(inputs)
            outputs.float().square().mean().backward()
        found.append((outputs.detach(), gradient_of(part).clone()))
        assert all(torch.equal(w, before[name]) for name, w in module.named_parameters())
        assert all(w.grad is None for w in module.parameters())
    assert torch.equal(found[0][0], found[1][0])
    close = {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=close * float(found[0][1].abs().max()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("features", [1, 2, 7, 24])
@pytest.mark.parametrize(
    "cut", [lambda x: x, lambda x: x[1:], lambda x: x[:, 1:], lambda x: x.t(), lambda x: x[:1].expand(5, -1)]
)
def test_turning_a_side_changes_no_bit(features, cut, threads):
    bits = torch.randint(-(2**15), 2**15, (7, features), dtype=torch.int16, generator=torch.Generator().manual_seed(0))
    side, before = cut(bits.view(torch.bfloat16)), torch.get_num_threads()  # infinities, NaNs and denormals among them
    try:
        torch.set_num_threads(threads)
        turned = _tokens_last(side, None)
    finally:
        torch.set_num_threads(before)
    assert turned.dtype == torch.float32 and turned.shape == side.t().shape
    assert torch.equal(turned.bfloat16().view(torch.int16), side.t().contiguous().view(torch.int16))


@pytest.mark.parametrize("tall", [1.0, 0.05])
@pytest.mark.parametrize("wide", [1.0, 0.05])
def test_every_gradient_is_that_of_its_own_entry(tall, wide):
    """Wherever entries lie: features of a side are picked where few hold entries, else transposed all."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(400, 300), nn.GELU(), nn.Linear(300, 400, bias=False)).requires_grad_(False)
    within = torch.rand(300) < tall, torch.rand(400) < wide
    places = torch.nonzero(torch.outer(*within).flatten()).flatten()
    at = places[torch.randperm(len(places))[:900]].sort().values
    used = at // 400, at % 400
    assert [len(side.unique()) < FEW * size for side, size in zip(used, (300, 400), strict=True)] == [
        tall < 1, wide < 1
    ]  # fmt: skip
    part = SparseDelta({"0.weight": at, "2.weight": at})
    part.values.data = 0.1 * torch.randn(len(part))
    inputs = torch.randn(WIDE, 400)
    with entry_copy(module, part, layers_of(module, part), torch.float32):
        module(inputs).square().sum().backward()
    merged = copy.deepcopy(module)
    for name, places, values in part.parts():
        dict(merged.named_parameters())[name].data.view(-1)[places.long()] += values
    for weight in merged.parameters():
        weight.requires_grad_()
    merged(inputs).square().sum().backward()
    dense = {name: weight.grad for name, weight in merged.named_parameters()}
    expected = [dense[name].flatten()[places.long()] for name, places, _ in part.parts()]  # type: ignore[union-attr]
    torch.testing.assert_close(gradient_of(part), torch.cat(expected), rtol=1e-4, atol=1e-2)


def test_inputs_get_their_gradient():
    module = net()
    part = delta_of(module)
    inputs = torch.randn(3, 5, COLUMNS, requires_grad=True)
    gradients = []
    for way in (working_copy(module, part), entry_copy(module, part, layers_of(module, part), torch.float32)):
        inputs.grad = None
        with way:
            module(inputs).square().sum().backward()
        assert inputs.grad is not None
        gradients.append(inputs.grad.clone())
    torch.testing.assert_close(*gradients)


def test_values_that_change_are_folded_and_a_support_that_moves_gives_back_what_it_leaves():
    module = net()
    part, own = delta_of(module), module.get_parameter("0.weight")
    weight = own.detach().clone()
    with entry_copy(module, part, layers_of(module, part), torch.float32) as copy:
        part.values.data.add_(1)
        copy.fold()
        assert torch.equal(own.view(-1)[part.indices[0]], weight.view(-1)[part.indices[0]] + 1)
        other = part.indices.clone()
        other[0] = next(i for i in range(weight.numel()) if i < int(part.indices[1]) and i != int(part.indices[0]))
        part.place(part.counts, other, part.values.data)
        copy.follow()
        changed = torch.nonzero(own.detach().flatten() != weight.flatten()).flatten()
        assert changed.tolist() == other[: part.counts[0]].tolist()
    assert torch.equal(own, weight)


def test_the_model_is_whole_again_after_an_interruption():
    module = net()
    part, before = delta_of(module), [w.clone() for w in module.parameters()]
    with pytest.raises(KeyboardInterrupt), entry_copy(module, part, layers_of(module, part), torch.float32):
        raise KeyboardInterrupt
    assert all(map(torch.equal, module.parameters(), before))
    assert all("forward" not in vars(layer) for layer in module)


class _Odd(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # of torch.compile itself
def test_whatever_is_no_plain_layer_is_left_to_dense_training():
    whole = net()
    part = delta_of(whole)
    assert plain_layers(whole, (part, part)) is None
    many = SparseDelta({"0.weight": torch.arange(int(MOST * ROWS * COLUMNS) + 1)})
    assert plain_layers(whole, (many,)) is None
    odd = nn.Sequential(_Odd(COLUMNS, ROWS), nn.GELU(), nn.Linear(ROWS, COLUMNS))
    assert plain_layers(odd, (part,)) is None
    tied = nn.Sequential(nn.Linear(COLUMNS, ROWS), nn.GELU(), nn.Linear(ROWS, COLUMNS), nn.Linear(COLUMNS, ROWS))
    tied[3].weight = tied[0].weight
    assert plain_layers(tied, (part,)) is None
    assert plain_layers(nn.Sequential(nn.Conv1d(2, 2, 60)), (SparseDelta({"0.weight": torch.tensor([0])}),)) is None
    compiled = net()
    compiled[0].compile()
    assert plain_layers(compiled, (part,)) is None
