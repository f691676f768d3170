"""RoSA's way to a support, step by step against a dense reference: parametrized weights, torch's own Adam, no part."""

import copy
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from kusabi.adapters.targets import plan
from kusabi.backbones.digest import module_digest
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.prefix import finish
from kusabi.spec_file import build, overlay
from kusabi.training.learn import Setting, learn
from kusabi.training.texts import class_texts
from kusabi.training.views import encode_views

PROMPTS = (("red",), ("a dog",), ("blue",))
STEPS, BATCH, WARM, RATE, HEAD_RATE, DECAY = 5, 8, 3, 1e-2, 4e-3, 0.2
FIELDS = {
    "adapter": {"kind": "hybrid", "support_rule": "warm_up", "layers": "last-2", "budget": 900},
    "low_rank": {"rank": 2, "warm_up": WARM},
    "safety": {"cross_fit": 0},
    "training": {
        "steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "head_learning_rate": HEAD_RATE,
        "value_decay": DECAY,
    },
}  # fmt: skip
SCALE = 2.0  # alpha is twice the rank where nothing is said


@pytest.fixture(scope="module")
def made(tiny):
    loaded = cache(lambda dtype, device: load_backbone(tiny("clip"), dtype=dtype, device=device))

    def of(dtype="float32", device="cpu", **tables):
        backbone, fields = loaded(dtype, device), FIELDS
        for table, values in tables.items():
            fields = overlay(fields, {table: values})
        spec = build(fields)
        with torch.no_grad():
            text = class_texts(backbone, PROMPTS)
        targets = plan(backbone.module, backbone.blocks, spec.adapter)
        return Setting(backbone, PROMPTS, text, targets, spec, dtype, 4)

    return of


def views_of(setting, dataset):
    layer = setting.plan.first_layer["vision"]
    return encode_views(setting.backbone, dataset, dataset.train, layer, views=2, augment="safe", seed=0)


@pytest.fixture(scope="module")
def views(made, dataset):
    return views_of(made(), dataset)


class Plus(nn.Module):
    def __init__(self, a, b, sparse, mask):
        super().__init__()
        self.a, self.b, self.sparse, self.mask = nn.Parameter(a.clone()), nn.Parameter(b), nn.Parameter(sparse), mask

    def forward(self, weight):
        return weight + SCALE * self.b @ self.a + (self.sparse * self.mask).view(weight.shape)


class Dense:
    """A copy of the model whose targets are ``W + 2 B A + mask * S``, differentiated by autograd alone."""

    def __init__(self, setting, views, downs, masks, prototypes):
        module = copy.deepcopy(setting.backbone.module)
        self.backbone, self.views = replace(setting.backbone, module=module), views
        self.prototypes, self.added = copy.deepcopy(prototypes), {}
        for name, down in downs.items():
            rows, columns = module.get_parameter(name).shape
            path, _, own = name.rpartition(".")
            up, sparse = torch.zeros(rows, len(down)), torch.zeros(rows * columns)
            self.added[name] = Plus(down, up, sparse, masks[name])
            parametrize.register_parametrization(module.get_submodule(path), own, self.added[name])

    def loss(self, step):
        count = len(self.views.labels)
        lap, place = divmod(step, count // BATCH)
        order = np.random.Generator(np.random.Philox(key=[0, lap])).permutation(count)
        rows = order[place * BATCH :][:BATCH].tolist()
        seen = finish(self.backbone, self.views.batch(rows), self.views.layer)
        return F.cross_entropy(self.prototypes(seen, None), self.views.labels[rows])

    def train(self, steps, learns_sparse):
        values = [v for p in self.added.values() for v in ((p.a, p.b, p.sparse) if learns_sparse else (p.a, p.b))]
        head = list(self.prototypes.parameters())
        groups = [{"params": values, "peak": RATE}, {"params": head, "peak": HEAD_RATE}]
        optimizer = torch.optim.Adam(groups, lr=1.0)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            optimizer.zero_grad()
            (self.loss(step) + DECAY / 4 * sum(value.square().sum() for value in values)).backward()
            optimizer.step()
            yield

    def squares(self, steps):
        found = {name: torch.zeros_like(part.sparse) for name, part in self.added.items()}
        for step in steps:
            names, parts = list(self.added), [part.sparse for part in self.added.values()]
            for name, dense in zip(names, torch.autograd.grad(self.loss(step), parts), strict=True):
                found[name] += dense.square()
        return found

    def flat(self):
        low_rank = [t.flatten() for p in self.added.values() for t in (p.a, p.b)]
        sparse = [p.sparse[p.mask.bool()] for p in self.added.values()]
        return torch.cat(sparse).detach(), torch.cat(low_rank).detach()


def kept(state):
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.tensors().items()}


def largest(squares, count):
    return sorted(np.argsort(-squares.detach().numpy(), kind="stable")[:count].tolist())


def test_warm_up_support_and_every_update_are_those_of_a_dense_reference(made, views):
    setting, born, steps = made(), [], []
    before = module_digest(setting.backbone.module)
    learned = learn(
        setting, views, begin=lambda state: born.append(copy.deepcopy((state.parts, state.prototypes))),
        each=lambda state, _: steps.append([part.values.detach().clone() for part in state.parts]),
    )  # fmt: skip
    assert module_digest(setting.backbone.module) == before and len(steps) == learned.steps == STEPS
    (sparse, low_rank), prototypes = born[0]
    downs = {name: low_rank.factors(name)[0] for name in low_rank.weights}
    assert sparse.names == low_rank.weights and len(sparse) + len(low_rank) == 900
    assert not sparse.values.any() and not any(low_rank.factors(name)[1].any() for name in downs)

    everything = {name: torch.ones(setting.backbone.module.get_parameter(name).numel()) for name in downs}
    warm = Dense(setting, views, downs, everything, prototypes)
    cold = warm.squares(range(3))
    list(warm.train(WARM, learns_sparse=False))
    squares = warm.squares(range(WARM, WARM + len(views.labels) // BATCH))
    found = {name: indices.tolist() for name, indices, _ in sparse.parts()}
    assert found == {name: largest(squares[name], len(at)) for name, at in found.items()}
    assert found != {name: largest(cold[name], len(at)) for name, at in found.items()}, "the warm-up tells"

    masks = {name: torch.zeros_like(mask) for name, mask in everything.items()}
    for name, at in found.items():
        masks[name][at] = 1.0
    both = Dense(setting, views, downs, masks, prototypes)
    for values, _ in zip(steps, both.train(STEPS, learns_sparse=True), strict=True):
        for value, wanted in zip(values, both.flat(), strict=True):
            assert wanted.any()
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=2e-4)
    assert torch.equal(learned.parts[0].values.data, steps[-1][0])


@pytest.mark.parametrize("more", [{}, {"low_rank": {"shrinkage": 0.5, "shrinkage_last": 30.0, "shrinkage_stages": 3}}])
def test_stopped_after_any_step_and_gone_on_with_it_gives_the_same_bytes(made, views, more):
    setting, saved = made(safety={"average": 0.5}, **more), []
    whole = learn(setting, views, each=lambda state, _: saved.append(dump_tensors(kept(state))))
    for checkpoint in saved[:-1]:
        tensors, ends = load_tensors(checkpoint), []
        other = learn(setting, views, saved=tensors, each=lambda state, _, ends=ends: ends.append(kept(state)))
        assert dump_tensors(ends[-1]) == saved[-1]
        for part, found in zip(whole.parts, other.parts, strict=True):
            assert torch.equal(part.values, found.values) and torch.equal(part.indices, found.indices)


def test_a_warm_up_as_long_as_the_training_or_longer_is_the_whole_of_it(made, views):
    supports = [learn(made(low_rank={"warm_up": n}), views).parts[0].indices for n in (STEPS, 1000, 1)]
    assert torch.equal(supports[0], supports[1]) and not torch.equal(supports[0], supports[2])


def test_gates_open_while_nothing_shrinks_them_close_in_the_stage_that_does(made, views):
    gates = []

    def each(state, _):
        part = state.parts[1]
        gates.append(torch.cat([part.factors(name)[2] for name in part.weights]))

    sora = {"shrinkage": 0.0, "shrinkage_last": 1e6, "shrinkage_stages": 2}
    learn(made(low_rank=sora, training={"steps": 4}), views, each=each)
    assert [bool(gate.any()) for gate in gates] == [True, True, False, False]
    assert all(bool(gate.all()) for gate in gates[:2])


def near(made, dataset, views, setting):
    """How much of the support is that of fp32 on the CPU."""
    wanted, found = (learn(s, v).parts[0] for s, v in ((made(), views), (setting, views_of(setting, dataset))))
    keys = [{(name, i) for name, indices, _ in part.parts() for i in indices.tolist()} for part in (wanted, found)]
    return len(keys[0] & keys[1]) / len(keys[0])


def test_half_precision_chooses_nearly_the_same_entries(made, views, dataset):
    assert near(made, dataset, views, made("bfloat16")) > 0.5


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.95), ("bfloat16", 0.5), ("float16", 0.8)])
def test_on_a_gpu_nearly_the_same_entries_are_chosen(made, views, dataset, dtype, share):
    assert near(made, dataset, views, made(dtype, "cuda")) > share
