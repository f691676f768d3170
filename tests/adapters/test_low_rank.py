import copy
import json
import math
from contextlib import ExitStack
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kusabi.adapters.attach import attached, merge
from kusabi.adapters.low_rank import LowRank, fresh
from kusabi.adapters.low_rank_settings import rising_shrinkage
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError

FUSED, UP, DOWN = "vision.3.self_attn.in_proj_weight", "vision.2.linear1.weight", "vision.3.linear2.weight"
SHAPES = {FUSED: (24, 8), UP: (16, 8), DOWN: (8, 16)}
PICTURES = torch.linspace(-1, 1, 96).sin().view(4, 3, 8)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
# What one weight may differ by where the update is summed beside it and not into it, relative to outputs near one.
NEAR = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}


def trained(shapes=SHAPES, rank=2, alpha=3.0, seed=0, **options):
    part = fresh(shapes, rank, alpha, seed=seed, **options)
    part.values.data = torch.randn(len(part), generator=torch.Generator().manual_seed(seed)) * 0.4
    return part


def updates(part):
    # The dense update of every weight, entry by entry in fp64 from the flat values: knows nothing of views.
    flat, at, found = part.values.detach().cpu().double().tolist(), 0, {}
    for name, (rows, columns) in part.shapes.items():
        r = part.ranks[name]
        a, at = np.array(flat[at : at + r * columns]).reshape(r, columns), at + r * columns
        b, at = np.array(flat[at : at + rows * r]).reshape(rows, r), at + rows * r
        g, at = (np.ones(r), at) if part.shrinkage is None else (np.array(flat[at : at + r]), at + r)
        scale = part.alphas[name] / (r**0.5 if part.rank_stabilized else r)
        found[name] = torch.tensor(scale * sum(g[i] * np.outer(b[:, i], a[i]) for i in range(r))).float()
    assert at == len(flat)
    return found


def dense(module, part):
    # A copy of the model whose weights were written by hand.
    copied = copy.deepcopy(module)
    for name, update in updates(part).items():
        weight = copied.get_parameter(name)
        weight.data = (weight.float() + update.view(weight.shape)).to(weight.dtype)
    return copied


def loss_of(module, pictures=PICTURES):
    embedded = module["vision"](pictures)
    return (embedded * torch.arange(24.0).sin().view(3, 8).to(embedded.dtype)).sum()


def plain_gradient(module, part, loss=loss_of):
    # Plain autograd: the factors are leaves, the weights are computed from them.
    leaves, weights = [], {}
    for name, (rows, columns) in part.shapes.items():
        r = part.ranks[name]
        a, b = torch.zeros(r, columns), torch.zeros(rows, r)
        a.copy_(part.values.data[part.slices[f"{name}.A"]].view_as(a))
        b.copy_(part.values.data[part.slices[f"{name}.B"]].view_as(b))
        g = torch.ones(r) if part.shrinkage is None else part.values.data[part.slices[f"{name}.g"]].clone()
        own = [a, b] if part.shrinkage is None else [a, b, g]
        leaves += [leaf.requires_grad_() for leaf in own]
        scale = part.alphas[name] / (math.sqrt(r) if part.rank_stabilized else r)
        weight = module.get_parameter(name)
        weights[name] = weight.detach().float() + (scale * b @ torch.diag(g) @ a).view(weight.shape)
    names = dict(module.named_parameters())
    loss(_Swapped(module, {**names, **weights})).backward()
    return torch.cat([leaf.grad.flatten() for leaf in leaves])


class _Swapped:
    # Calls a model with other tensors in place of its weights.
    def __init__(self, module, tensors):
        self.module, self.tensors = module, tensors

    def __getitem__(self, key):
        own = {n.removeprefix(f"{key}."): t for n, t in self.tensors.items() if n.startswith(f"{key}.")}
        return lambda *inputs: torch.func.functional_call(self.module[key], own, inputs)


def test_what_is_trained_is_named_and_laid_out_weight_by_weight():
    part = fresh({"w": (3, 2, 2), "v": (2, 5)}, {"w": 2, "v": 1}, 1.0)
    assert part.names == ("w.A", "w.B", "v.A", "v.B") and part.counts == (8, 6, 5, 2) and part.weights == ("w", "v")
    assert part.shapes == {"w": (3, 4), "v": (2, 5)}
    gated = fresh({"w": (3, 2, 2)}, 2, 1.0, shrinkage=0.1)
    assert gated.names == ("w.A", "w.B", "w.g") and gated.counts == (8, 6, 2)


def test_a_at_birth_is_kaiming_uniform_of_seed_and_name_alone_and_b_is_zero():
    shapes = {"w": (70, 400), "v": (70, 400)}
    part = fresh(shapes, 20, 1.0, seed=3)
    for name in shapes:
        a, b, gate = part.factors(name)
        assert gate is None and not bool(b.any()) and bool(a.all())
        reference = nn.init.kaiming_uniform_(torch.empty(20, 400), a=math.sqrt(5))
        assert a.abs().max() <= 0.05 and torch.isclose(a.std(), reference.std(), rtol=0.03) and abs(a.mean()) < 1e-3
    assert not torch.equal(part.factors("w")[0], part.factors("v")[0]), "equal shapes, other names"
    assert not torch.equal(part.factors("w")[0], fresh(shapes, 20, 1.0, seed=4).factors("w")[0])
    alone = fresh({"w": (70, 400)}, 20, 9.0, seed=3, rank_stabilized=True)
    assert torch.equal(alone.factors("w")[0], part.factors("w")[0])
    # By numpy's Philox and scipy's normal quantiles, outside of this project.
    golden = torch.tensor([0.008999045006930828, 0.04181671515107155, -0.04258104786276817])
    torch.testing.assert_close(part.values.data[:3], golden, rtol=0, atol=0)
    golden = torch.tensor([0.19071535766124725, -0.24405483901500702, -0.9337533712387085])
    gate = fresh(shapes, 20, 1.0, seed=3, shrinkage=0.1).factors("w")[2]
    torch.testing.assert_close(gate[:3], golden, rtol=1e-6, atol=0)


def test_gates_at_birth_are_standard_normal():
    gate = fresh({"w": (600, 600)}, 500, 1.0, shrinkage=0.1).factors("w")[2]
    assert abs(gate.mean()) < 0.15 and abs(gate.std() - 1) < 0.1 and 2 < gate.abs().max() < 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shrinkage", [None, 0.1])
def test_a_fresh_part_changes_no_output_bitwise_attached_or_trained(towers, digest, dtype, shrinkage):
    module, pictures = towers(dtype=dtype), PICTURES.to(dtype)
    before, part = digest(module), fresh(SHAPES, 2, 1.0, shrinkage=shrinkage)
    with torch.no_grad():
        outputs = module["vision"](pictures)
        with attached(module, part):
            assert digest(module) == before and torch.equal(module["vision"](pictures), outputs)
    if dtype is torch.float32:
        other = towers()
        for name in SHAPES:  # so that the same layers take the kernels of training
            other.get_parameter(name).requires_grad_(True)
        outputs = other["vision"](pictures)
        with working_copy(module, part):
            assert torch.equal(module["vision"](pictures), outputs)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 4), st.floats(0.1, 30), st.booleans(),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_what_is_added_is_the_scaled_product_for_any_shape(shape, rank, alpha, rank_stabilized, gated, seed):
    rank, part = min(rank, shape[0], math.prod(shape[1:])), None
    part = trained({"w": shape}, rank, alpha, seed, rank_stabilized=rank_stabilized, shrinkage=0.1 if gated else None)
    at, amounts = part.added("w")
    assert at is None and amounts.shape == (math.prod(shape),)
    torch.testing.assert_close(amounts, updates(part)["w"].flatten(), rtol=1e-5, atol=1e-5)


def test_scales():
    part = fresh({"w": (9, 9), "v": (9, 9)}, {"w": 4, "v": 9}, {"w": 2.0, "v": 3.0})
    assert (part.scale("w"), part.scale("v")) == (0.5, 3 / 9)
    part = fresh({"w": (9, 9), "v": (9, 9)}, {"w": 4, "v": 9}, {"w": 2.0, "v": 3.0}, rank_stabilized=True)
    assert (part.scale("w"), part.scale("v")) == (1.0, 1.0)


def test_autocast_around_it_does_not_round_the_update():
    part, gradient = trained(), torch.randn(16, 8)
    wanted = part.added(UP)[1]
    part.take(UP, gradient)
    taken, part.values.grad = part.values.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(part.added(UP)[1], wanted)
        part.take(UP, gradient)
    assert torch.equal(part.values.grad, taken)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", ["hook", "merged"])
@pytest.mark.parametrize("options", [{}, {"rank_stabilized": True}, {"shrinkage": 0.1}])
@pytest.mark.parametrize("micro_batch", [4, 1])
def test_gradients_equal_those_of_plain_autograd_beside_and_merged(
    towers, monkeypatch, options, way, micro_batch, device
):
    module, part = towers(), trained(rank={FUSED: 3, UP: 2, DOWN: 1}, **options)
    wanted, dense_shapes = plain_gradient(module, part), []
    module, part = module.to(device), part.to(device)
    if way == "merged":
        monkeypatch.setattr(LowRank, "beside", lambda *_: {})
    with working_copy(module, part, watch=lambda name, gradient: dense_shapes.append(name)):
        for pictures in PICTURES.to(device).split(micro_batch):
            embedded = module["vision"](pictures)
            (embedded * torch.arange(24.0).sin().view(3, 8).to(device)).sum().backward()
            assert all(parameter.grad is None for parameter in module.parameters())
    assert set(dense_shapes) == ({FUSED} if way == "hook" else set(SHAPES)), "no dense gradient beside"
    assert float(wanted.abs().median()) > 1e-2
    torch.testing.assert_close(part.values.grad.cpu(), wanted, rtol=1e-4, atol=2e-4)


def test_a_second_backward_through_one_forward_adds_the_same_again():
    layer, part = layer_of(20), trained({"a.weight": (3, 20)})
    with working_copy(layer, part):
        loss = layer["a"](torch.linspace(-1, 1, 20)).square().sum()
        loss.backward(retain_graph=True)
        once = part.values.grad.clone()
        loss.backward()
    assert torch.equal(part.values.grad, 2 * once)


def test_kernels_train_merged_as_matrices():
    torch.manual_seed(0)
    module = nn.ModuleDict({"vision": nn.Sequential(nn.Conv2d(3, 5, 2), nn.Flatten(), nn.Linear(20, 4))})
    module.requires_grad_(False)
    part = trained({"vision.0.weight": (5, 3, 2, 2), "vision.2.weight": (4, 20)})
    pictures = torch.randn(2, 3, 3, 3)

    def loss(module):
        return (module["vision"](pictures) * torch.arange(4.0).cos()).square().sum()

    wanted = plain_gradient(module, part, loss)
    with working_copy(module, part) as copied:
        assert list(copied.weights) == ["vision.0.weight"]
        loss(module).backward()
    torch.testing.assert_close(part.values.grad, wanted, rtol=1e-4, atol=1e-5)


def test_steps_follow_plain_autograd_with_a_fold_after_each(towers):
    module, part = towers(), trained()
    reference = copy.deepcopy(part)
    with working_copy(module, part) as copied:
        for _ in range(4):
            loss_of(module).backward()
            part.values.data -= 2e-3 * part.values.grad
            part.values.grad = None
            copied.fold()
            reference.values.data -= 2e-3 * plain_gradient(module_of(towers), reference)
    assert not torch.allclose(part.values, trained().values, atol=1e-2)
    torch.testing.assert_close(part.values, reference.values, rtol=1e-3, atol=1e-4)


def module_of(towers):
    return towers()


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_beside_are_near_the_attached_ones_and_leaving_restores_every_bit(towers, digest, dtype):
    module, part, pictures = towers(dtype=dtype), trained({UP: (16, 8), DOWN: (8, 16)}), PICTURES.to(dtype)
    before = digest(module)
    frozen = module["vision"](pictures)
    with attached(module, part):
        joined = module["vision"](pictures)
    with working_copy(module, part):
        beside = module["vision"](pictures)
        assert beside.dtype == dtype and not any(layer.requires_grad for layer in module.parameters())
    assert digest(module) == before and not module.get_submodule("vision.2.linear1")._forward_hooks
    assert float((frozen - joined).abs().max()) > 0.3
    torch.testing.assert_close(beside.float(), joined.float(), rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_attached_and_merged_are_the_dense_sum_rounded_once(towers, digest, dtype):
    module, part = towers(dtype=dtype), trained()
    before, wanted, merged = digest(module), dense(module, part), copy.deepcopy(module)
    merge(merged, part)
    with attached(module, part):
        assert digest(module) == digest(merged) != before, "bitwise the same"
        for name in SHAPES:
            ours, reference = module.get_parameter(name).float(), wanted.get_parameter(name).float()
            torch.testing.assert_close(ours, reference, rtol=torch.finfo(dtype).eps, atol=1e-6)
    assert digest(module) == before


@settings(max_examples=12, deadline=None)
@given(toggles=st.lists(st.integers(0, 3), max_size=12), dtype=st.sampled_from(DTYPES))
def test_with_sparse_deltas_they_come_and_go_in_any_order(towers, digest, toggles, dtype):
    module = towers(dtype=dtype)
    before, frozen = digest(module), {name: module.get_parameter(name).float().clone() for name in SHAPES}
    sparse = [SparseDelta({name: random_support(128, 40, i, name) for name in (FUSED, UP)}) for i in range(2)]
    for i, delta in enumerate(sparse):
        delta.values.data = torch.randn(len(delta), generator=torch.Generator().manual_seed(i)) * 0.1
    parts = [sparse[0], trained(seed=1), sparse[1], trained({UP: (16, 8)}, seed=2)]
    present: dict[int, ExitStack] = {}
    for which in [*toggles, *(i for i in range(4) if toggles.count(i) % 2)]:
        if which in present:
            present.pop(which).close()
        else:
            present[which] = ExitStack()
            present[which].enter_context(attached(module, parts[which]))
        for name, weight in frozen.items():
            total = torch.zeros(weight.numel())
            for part in (parts[i] for i in present if name in parts[i].weights):
                if isinstance(part, LowRank):
                    total += updates(part)[name].flatten()
                else:
                    total[part.indices[part.slices[name]].long()] += part.values.data[part.slices[name]]
            wanted, eps = weight + total.view(weight.shape), torch.finfo(dtype).eps
            torch.testing.assert_close(module.get_parameter(name).float(), wanted, rtol=eps, atol=1e-6)
    assert not present and digest(module) == before


def test_rescaling_weakens_the_update_exactly_at_zero_and_one(towers, digest):
    module, part = towers(dtype=torch.bfloat16), trained(shrinkage=0.1)
    before, values, whole = digest(module), part.values.data.clone(), updates(part)
    part.rescale(1.0)
    assert torch.equal(part.values, values)
    part.rescale(0.3)
    for name, update in updates(part).items():
        torch.testing.assert_close(update, 0.3 * whole[name])
    part.rescale(0.0)
    with attached(module, part):
        assert digest(module) == before
    assert all(part.factors(name)[0].any() for name in SHAPES), "A stays, so that training could go on"


def dropped(part, layer, inputs):
    with working_copy(layer, part):
        return layer["a"](inputs)


def layer_of(columns=200, rows=3):
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(columns, rows)}).requires_grad_(False)


def test_dropout_hides_inputs_of_the_update_only_and_keeps_its_mean():
    layer, part = layer_of(), trained({"a.weight": (3, 200)}, dropout=0.25)
    part.draw(0, 0, 0)
    seen = dropped(part, layer, torch.eye(200)) - layer["a"](torch.eye(200))  # row i: what input i added
    update = updates(part)["a.weight"].t()
    hidden = (seen.abs() < 1e-6).all(1)
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.1)
    torch.testing.assert_close(seen[~hidden], update[~hidden] / 0.75, rtol=1e-3, atol=1e-5)
    inputs = torch.randn(1, 200).expand(4000, 200)
    mean = (dropped(part, layer, inputs) - layer["a"](inputs)).mean(0)
    torch.testing.assert_close(mean, inputs[0] @ update, rtol=0.05, atol=0.1)


def test_a_mask_is_a_function_of_seed_update_forward_and_weight_and_only_drawn_forwards_drop():
    torch.manual_seed(0)
    layer = nn.ModuleDict({"a": nn.Linear(50, 3), "b": nn.Linear(50, 3)}).requires_grad_(False)
    layer["b"].load_state_dict(layer["a"].state_dict())
    part, inputs = trained({"a.weight": (3, 50), "b.weight": (3, 50)}, dropout=0.5), torch.randn(2, 50)
    half = len(part) // 2
    part.values.data[half:] = part.values.data[:half]  # both layers the same, but for their masks

    def run(*key):
        if key:
            part.draw(*key)
        with working_copy(layer, part):
            return torch.stack([layer["a"](inputs), layer["b"](inputs)])

    undropped = run()
    first = run(1, 2, 3)
    assert torch.equal(undropped[0], undropped[1]) and not torch.allclose(first[0], first[1])
    torch.rand(7)  # torch's own stream has no say
    again = trained({"a.weight": (3, 50), "b.weight": (3, 50)}, dropout=0.5)  # as after a restart
    again.values.data, part = part.values.data.clone(), again
    assert torch.equal(run(1, 2, 3), first)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.allclose(run(*other), first)
    with attached(layer, part):
        torch.testing.assert_close(torch.stack([layer["a"](inputs), layer["b"](inputs)]), undropped)
    part.settle(0.1, 0.5)
    assert torch.equal(run(), undropped), "after the update, until the next draw"


def test_dropped_inputs_give_no_gradient_and_a_recomputed_forward_drops_the_same():
    layer, part = layer_of(20), trained({"a.weight": (3, 20)}, dropout=0.5)
    gradients = []
    for recomputed in (None, False, True):
        part.draw(0, 1, 2)
        with working_copy(layer, part):
            inputs = torch.linspace(1, 2, 20)[None].requires_grad_()
            if recomputed is None:
                output = layer["a"](inputs)
            else:
                output = checkpoint(layer["a"], inputs, use_reentrant=recomputed)
            output.square().sum().backward()
        gradients.append(part.values.grad)
        part.values.grad = None
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])
    hidden = gradients[0][part.slices["a.weight.A"]].view(2, 20) == 0
    assert torch.equal(hidden[0], hidden[1]) and 4 <= int(hidden[0].sum()) <= 16
    layer["a"].weight.data.zero_()  # what is left of the gradient of the inputs is the update's
    part.draw(0, 1, 2)
    with working_copy(layer, part):
        inputs = torch.linspace(1, 2, 20)[None].requires_grad_()
        layer["a"](inputs).sum().backward()
    assert torch.equal(inputs.grad[0] == 0, hidden[0])


def test_dropout_that_cannot_reach_a_weight_is_refused_with_all_such_weights(towers, digest):
    module, out = towers(), "vision.3.self_attn.out_proj.weight"
    before = digest(module)
    part = trained({**SHAPES, out: (8, 8)}, dropout=0.1)
    with pytest.raises(AdapterError, match="train with dropout 0") as refusal, working_copy(module, part):
        pytest.fail("entered")
    assert FUSED in str(refusal.value) and out in str(refusal.value) and UP not in str(refusal.value)
    assert digest(module) == before and not module.get_submodule("vision.2.linear1")._forward_hooks
    with attached(module, part):
        assert digest(module) != before


def test_an_update_shrinks_gates_by_rate_times_strength_as_in_the_paper():
    part = fresh({"w": (9, 9), "v": (9, 9)}, 5, 1.0, shrinkage=0.5)
    gate = torch.tensor([0.25, -0.25, 0.15, 0.1, -0.05])
    for name in ("w", "v"):
        part.values.data[part.slices[f"{name}.g"]] = gate
    before = part.values.data.clone()
    part.settle(0.2, 0.5)
    for name in ("w", "v"):  # proximal operator of 0.1 |g|: by hand
        torch.testing.assert_close(part.factors(name)[2], torch.tensor([0.15, -0.15, 0.05, 0.0, 0.0]))
        assert part.factors(name)[2][3:].tolist() == [0, 0], "closed for good, not nearly"
        for own in (part.slices[f"{name}.A"], part.slices[f"{name}.B"]):
            assert torch.equal(part.values.data[own], before[own])
    point, steps = torch.tensor(0.3), torch.linspace(-1, 1, 200001)
    best = steps[((steps - point).square() / 2 + 0.1 * steps.abs()).argmin()]
    part.values.data[part.slices["w.g"]] = point
    part.settle(0.2, 0.5)
    torch.testing.assert_close(part.factors("w")[2], best.expand(5), rtol=0, atol=2e-5)


def test_the_authors_code_closes_at_twice_the_threshold_and_knows_no_rate():
    def authors(gate, threshold):  # src/sparse_optimizer.py of TsinghuaC3I/SoRA, in their order
        gate = gate.clone()
        gate[gate > threshold] -= threshold
        gate[gate < -threshold] += threshold
        gate[abs(gate) < threshold] = 0.0
        return gate

    gate = torch.tensor([0.25, 0.15, -0.15, 0.05])
    part = fresh({"w": (9, 9)}, 4, 1.0, shrinkage=1.0)
    part.values.data[part.slices["w.g"]] = gate
    part.settle(0.1, 0.5)
    theirs, ours = authors(gate, 0.1), part.factors("w")[2]
    torch.testing.assert_close(ours, torch.tensor([0.15, 0.05, -0.05, 0.0]))
    torch.testing.assert_close(theirs, torch.tensor([0.15, 0.0, 0.0, 0.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=5).map(sorted), st.integers(1, 23), st.integers(0, 9))
def test_a_schedule_descends_from_stage_to_stage_as_a_numpy_reference_does(xis, updates, seed):
    # Algorithm of SoRA with its scheduler, on |g - t|^2 / 2: stage after stage, each from where the last one ended.
    random = np.random.default_rng(seed)
    start, target = random.normal(size=4), random.normal(size=4)
    part = fresh({"w": (9, 9)}, 4, 1.0, shrinkage=xis if len(xis) > 1 else xis[0])
    gate = part.values.data[part.slices["w.g"]]
    gate.copy_(torch.from_numpy(start))
    wanted, ended = start.copy(), 0
    for stage, xi in enumerate(xis, start=1):
        end = Fraction(stage * updates, len(xis)).__floor__()  # updates over when the stage is
        for update in range(ended, end):
            rate = 0.3 / (1 + update)
            wanted = wanted - rate * (wanted - target)
            wanted = np.sign(wanted) * np.maximum(np.abs(wanted) - rate * xi, 0)
            gate -= rate * (gate - torch.from_numpy(target).float())
            part.settle(rate, (update + 1) / updates)
        ended = end
    np.testing.assert_allclose(gate.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_schedules_rise_by_equal_steps_or_equal_factors():
    np.testing.assert_allclose(rising_shrinkage(0.0, 7e-4, 7), np.linspace(0, 7e-4, 7))
    np.testing.assert_allclose(rising_shrinkage(0.5, 30.0, 4, "geometric"), np.geomspace(0.5, 30, 4))
    for first, last, stages, spacing, complaint in (
        (1.0, 1.0, 3, "linear", "cannot rise from 1 to 1 in 3 stages"),
        (-1.0, 1.0, 3, "linear", "cannot rise from -1"),
        (0.0, 1.0, 1, "linear", "in 1 stages"),
        (0.0, 1.0, 3, "geometric", "no factor leads away from a shrinkage of 0"),
    ):
        with pytest.raises(AdapterError, match=complaint):
            rising_shrinkage(first, last, stages, spacing)


def test_a_schedule_goes_to_a_card_and_back():
    part = fresh({"w": (4, 6)}, 2, 1.0, shrinkage=rising_shrinkage(0.0, 2.0, 3))
    told = json.loads(json.dumps(part.settings()))
    assert told == part.settings() and told["shrinkage"] == [0.0, 1.0, 2.0]
    again = LowRank.build(told, {name: indices for name, indices, _ in part.parts()})
    assert again.settings() == told and again.shrinkage == (0.0, 1.0, 2.0)
    assert part.finished().settings()["shrinkage"] is None, "what only training needs is gone after it"


def test_without_gates_an_update_settles_nothing():
    part = trained()
    before = part.values.data.clone()
    part.settle(1.0, 0.5)
    assert torch.equal(part.values, before)


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_pruning_leaves_closed_ranks_out_and_keeps_the_update(towers, rank_stabilized):
    part = trained(rank=4, alpha=3.0, shrinkage=0.2, rank_stabilized=rank_stabilized)
    part.values.data[part.slices[f"{FUSED}.g"]] = torch.tensor([0.0, -0.7, 0.0, 0.3])
    part.values.data[part.slices[f"{UP}.g"]] = 0.0
    before, plain = updates(part), part.pruned()
    assert plain.ranks == {FUSED: 2, DOWN: 4} and plain.shrinkage is None and plain.weights == (FUSED, DOWN)
    assert len(plain) == 2 * 32 + 4 * 24
    for name, update in updates(plain).items():
        assert bool(update.any())
        torch.testing.assert_close(update, before[name], rtol=1e-5, atol=1e-6)
        assert plain.scale(name) == pytest.approx(part.scale(name), rel=1e-12)
    module, other = towers(), towers()
    with attached(module, part), attached(other, plain):
        torch.testing.assert_close(module["vision"](PICTURES), other["vision"](PICTURES), rtol=1e-4, atol=1e-5)


def test_pruning_a_part_whose_gates_are_all_closed_leaves_one_that_adds_nothing(towers, digest):
    module, part = towers(), trained(shrinkage=100.0)
    part.settle(1.0, 1.0)
    plain, before = part.pruned(), digest(module)
    assert plain.ranks == {FUSED: 1}
    with attached(module, plain):
        assert digest(module) == before


@pytest.mark.parametrize("options", [{}, {"rank_stabilized": True, "dropout": 0.25}, {"shrinkage": 0.1}])
def test_settings_and_supports_build_the_same_part(options):
    part = trained(rank={FUSED: 3, UP: 2, DOWN: 1}, alpha={FUSED: 1.0, UP: 2.5, DOWN: 3.0}, **options)
    told = {key: part.settings()[key] for key in sorted(part.settings(), reverse=True)}  # JSON may sort them anyhow
    told["ranks"] = dict(sorted(told["ranks"].items()))
    built = LowRank.build(told, {name: indices for name, indices, _ in part.parts()})
    assert not bool(built.values.any())
    built.values.data.copy_(part.values)
    assert built.names == part.names and built.settings() == part.settings()
    for name, update in updates(built).items():
        assert torch.equal(update, updates(part)[name])


def hostile(change):
    part = trained({"w": (4, 6), "v": (3, 3)}, shrinkage=0.1)
    told, supports = part.settings(), {name: indices.clone() for name, indices, _ in part.parts()}
    change(told, supports)
    return lambda: LowRank.build(told, supports)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t, s: t.pop("alphas"), "are not those of a low-rank adapter"),
        (lambda t, s: t.update(more=1), "are not those of a low-rank adapter"),
        (lambda t, s: t.update(ranks=3), "ranks must be one number for each weight, not 3"),
        (lambda t, s: t.update(alphas=[1]), "alphas must be one number for each weight"),
        (lambda t, s: t["ranks"].update(w=0), "w: rank 0 must be a whole number from 1"),
        (lambda t, s: t["ranks"].update(w=True), "w: rank True must"),
        (lambda t, s: t["ranks"].update(w="2"), "w: rank '2' must"),
        (lambda t, s: t["ranks"].update(w=10**15), "make no matrices of rank 1000000000000000"),
        (lambda t, s: t["ranks"].update(w=4), r"w: \[8, 12, 2\] entries of w.B, w.A, w.g make no matrices of rank 4"),
        (lambda t, s: t["ranks"].pop("v"), "v: "),
        (lambda t, s: t["ranks"].update(u=1), "u: needs a shape, a rank and an alpha"),
        (lambda t, s: t["alphas"].update(u=1.0), "u: needs a shape, a rank and an alpha"),
        (lambda t, s: t["alphas"].update(w=-1.0), "w: alpha -1.0 must be a positive number"),
        (lambda t, s: t["alphas"].update(w=math.inf), "w: alpha inf must"),
        (lambda t, s: t["alphas"].update(w=math.nan), "w: alpha nan must"),
        (lambda t, s: t.update(dropout=1.0), r"dropout must be in \[0, 1\), not 1.0"),
        (lambda t, s: t.update(dropout=None), "dropout must be"),
        (lambda t, s: t.update(shrinkage=-1), "shrinkage must be a number from 0"),
        (lambda t, s: t.update(shrinkage=[2.0, 1.0]), r"that does not fall, not \[2.0, 1.0\]"),
        (lambda t, s: t.update(shrinkage=[1.0]), r"shrinkage must be .*, not \[1.0\]"),
        (lambda t, s: t.update(shrinkage=[]), r"shrinkage must be .*, not \[\]"),
        (lambda t, s: t.update(shrinkage="12"), "shrinkage must be .*, not '12'"),
        (lambda t, s: t.update(shrinkage=[0, math.nan]), "shrinkage must be"),
        (lambda t, s: t.update(shrinkage=[False, 1]), "shrinkage must be"),
        (lambda t, s: t.update(shrinkage=[[1]]), "shrinkage must be"),
        (lambda t, s: t.update(shrinkage=None), "'w.g' does not belong here"),
        (lambda t, s: t.update(rank_stabilized=1), "rank_stabilized must be true or false"),
        (lambda t, s: s.pop("w.B"), r"w: \[0, 12, 2\] entries"),
        (lambda t, s: s.pop("w.A"), "'w.B' does not belong here"),
        (lambda t, s: s.pop("v.g"), r"v: \[6, 6, 0\] entries"),
        (lambda t, s: s.update({"w.A": torch.arange(11)}), r"w: \[8, 11, 2\] entries"),
        (lambda t, s: s.update({"w.g": torch.arange(4)}), r"w: \[8, 12, 4\] entries"),
        (lambda t, s: s.update({"w.A": torch.arange(12) + 1}), "'w.A' lacks entries"),
        (lambda t, s: s.update({"w.A": s.pop("w.A")}), "they are in another order"),
        (lambda t, s: s.clear(), "needs a shape, a rank and an alpha"),
    ],
)
def test_hostile_settings_and_supports_are_refused_in_words(change, complaint):
    with pytest.raises(AdapterError, match=complaint):
        hostile(change)()


def test_all_that_is_wrong_is_listed_at_once():
    with pytest.raises(AdapterError) as refusal:
        fresh({"w": (4, 6), "v": (3, 3)}, {"w": 0, "v": 1.5}, {"w": 1.0, "v": 0.0}, dropout=2.0)
    for complaint in ("w: rank 0 must", "v: rank 1.5 must", "v: alpha 0.0 must", "dropout must be in [0, 1), not 2.0"):
        assert complaint in str(refusal.value)
    with pytest.raises(AdapterError) as refusal:
        fresh({"w": (4, 6), "v": (3,)}, 5, 1.0)
    assert "v: shape (3,) is no matrix" in str(refusal.value)
    assert "w: rank 5 is more than a matrix of 4 x 6 can have" in str(refusal.value)
    with pytest.raises(AdapterError, match="v: needs a shape, a rank and an alpha"):
        fresh({"w": (4, 6), "v": (3, 3)}, {"w": 1}, 1.0)
    with pytest.raises(AdapterError, match="at least one target"):
        fresh({}, 1, 1.0)


def test_a_model_with_other_weights_is_refused_with_every_mismatch(towers, digest):
    module = towers()
    before = digest(module)
    part = trained({UP: (8, 16), "vision.9.weight": (3, 3), "vision.0.norm1.weight": (8, 1), DOWN: (8, 16)}, rank=1)
    with pytest.raises(AdapterError) as refusal, attached(module, part):
        pytest.fail("entered")
    assert f"{UP}: factors of 8 x 16 for a weight of (16, 8)" in str(refusal.value)
    assert "vision.9.weight: the model has no such weight" in str(refusal.value)
    assert "vision.0.norm1.weight: factors of 8 x 1 for a weight of (8,)" in str(refusal.value)
    assert DOWN not in str(refusal.value) and digest(module) == before


def test_casts_leave_the_sum_in_fp32_and_indices_integers(towers):
    part = trained().to(torch.bfloat16)
    assert part.indices.dtype == torch.int32 and part.added(UP)[1].dtype == torch.float32
    torch.testing.assert_close(part.added(UP)[1], updates(part)[UP].flatten(), rtol=1e-5, atol=1e-6)


def test_under_autocast_the_hook_keeps_the_type_of_the_layer():
    layer, part, inputs = layer_of(20), trained({"a.weight": (3, 20)}), torch.randn(2, 20)
    with working_copy(layer, part), torch.autocast("cpu", torch.bfloat16):
        output = layer["a"](input=inputs)
        output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and part.values.grad.dtype == torch.float32
    wanted = F.linear(inputs, layer["a"].weight + updates(part)["a.weight"], layer["a"].bias)
    torch.testing.assert_close(output.float(), wanted, rtol=6e-2, atol=6e-2)
    reference = plain_gradient(layer, part, lambda swapped: swapped["a"](inputs).sum())
    torch.testing.assert_close(part.values.grad, reference, rtol=6e-2, atol=6e-2)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_stock_peft_has_the_same_gradients_and_follows_the_same_steps(options):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).requires_grad_(False)
    shapes, inputs = {"0.weight": (5, 6), "2.weight": (3, 5)}, torch.randn(4, 6)
    part = trained(shapes, 2, 5.0, rank_stabilized=bool(options))
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["0", "2"], **options)
    stock = peft.get_peft_model(copy.deepcopy(module), config)
    theirs = dict(stock.named_parameters())
    leaves = [theirs[f"base_model.model.{path}.lora_{factor}.default.weight"] for path in ("0", "2") for factor in "AB"]
    for leaf, (_, _, values) in zip(leaves, part.parts(), strict=True):
        leaf.data.copy_(values.view_as(leaf))
    with working_copy(module, part) as copied:
        for _ in range(3):
            ours, wanted = module(inputs), stock(inputs)
            assert torch.equal(ours, wanted)
            ours.square().sum().backward()
            wanted.square().sum().backward()
            assert torch.equal(part.values.grad, torch.cat([leaf.grad.flatten() for leaf in leaves]))
            for flat in (part.values, *leaves):
                flat.data -= 1e-2 * flat.grad
                flat.grad = None
            copied.fold()
