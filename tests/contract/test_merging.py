"""Merged equals attached: bitwise, in every dtype, also where several parts meet in one weight."""

import pytest
import torch

from kusabi.adapters.attach import attached, merge
from kusabi.errors import AdapterError

# What one rounding of a sum to the weight's dtype may cost, relative to the sum.
ROUNDING = {"float32": 2e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def bits(module):
    return {name: tensor.detach().flatten().clone().view(torch.uint8) for name, tensor in module.named_parameters()}


def sums(model, parts):
    """Weight -> frozen weight plus what the parts add, in fp64, written without the code that is tested."""
    found = {}
    for part in parts:
        entries = {name: (indices.long(), values.double()) for name, indices, values in part.parts()}
        for weight in part.weights:
            total = found.setdefault(weight, model.module.get_parameter(weight).detach().double().clone())
            if part.kind == "sparse_delta":
                at, values = entries[weight]
                total.view(-1)[at] += values
            else:
                rank, settings = part.settings()["ranks"][weight], part.settings()
                a = entries[f"{weight}.A"][1].view(rank, -1)
                b = entries[f"{weight}.B"][1].view(-1, rank)
                gates = entries[f"{weight}.g"][1] if f"{weight}.g" in entries else torch.ones(rank).double()
                scale = settings["alphas"][weight] / (rank**0.5 if settings["rank_stabilized"] else rank)
                for i in range(rank):
                    total += (scale * gates[i] * torch.outer(b[:, i], a[i])).view(total.shape)
    return found


def test_a_merged_model_is_the_attached_one_bitwise_and_both_are_the_sum(subject, place, twin, mergeable):
    model = subject(*place)
    parts, merged = model.parts(mergeable), twin(model.module)
    wanted = sums(model, parts)
    merge(merged, *parts)
    with torch.no_grad(), attached(model.module, *parts):
        here, there = bits(model.module), bits(merged)
        assert all(torch.equal(here[name], there[name]) for name in here)
        assert torch.equal(model.answers(), model.answers(module=merged))
        with pytest.raises(AdapterError, match="leave all attached adapters"):
            merge(model.module, *model.parts(mergeable, seed=1))
    assert len(wanted) >= 16
    for name, total in wanted.items():
        found = merged.get_parameter(name).detach().double()
        assert not torch.equal(found, model.module.get_parameter(name).double())
        torch.testing.assert_close(found, total, rtol=ROUNDING[place[1]], atol=1e-6)
    untouched = {name for name, tensor in bits(model.module).items() if torch.equal(tensor, there[name])}
    assert untouched == here.keys() - wanted.keys()


def test_a_bottleneck_refuses_to_be_merged_by_name_and_so_does_what_goes_with_it(subject, trace, twin, inserted):
    model = subject()
    merged = twin(model.module)
    before = trace(merged)
    for parts in (model.parts(inserted), model.parts("hybrid") + model.parts(inserted)):
        with pytest.raises(AdapterError, match=r"a bottleneck computes beside the model and cannot be merged"):
            merge(merged, *parts)
        assert trace(merged) == before


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_a_merged_model_is_the_attached_one_bitwise(subject, twin, mergeable, dtype):
    model = subject("clip", dtype, "cuda")
    parts, merged = model.parts(mergeable), twin(model.module)
    merge(merged, *parts)
    with torch.no_grad(), attached(model.module, *parts):
        here, there = bits(model.module), bits(merged)
        assert all(torch.equal(here[name], there[name]) for name in here)
        assert torch.equal(model.answers(), model.answers(module=merged))
