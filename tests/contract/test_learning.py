"""Only the adapter learns, from exact gradients, and a stopped training goes on bitwise."""

import copy

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch.nn import functional as F

from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.part import gradient_of
from kusabi.adapters.targets import plan
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.spec_file import build, overlay
from kusabi.training.learn import Setting, learn
from kusabi.training.optimizer import FlatAdamW
from kusabi.training.precision import autocast
from kusabi.training.texts import class_texts
from kusabi.training.views import encode_views


def loss_of(features):
    """A sum over rows, so that micro-batches add up; of no symmetry that could hide a sign."""
    weights = torch.arange(features.shape[1], device=features.device).sin()
    return (features * weights).sum() + (features**2 * weights.cos()).sum()


def flat_gradients(parts):
    return [gradient_of(part).clone() for part in parts]


# ---- An independent reference: each tensor of a part as a dense leaf, the update written out, autograd through it.


def dense_leaves(parts):
    leaves = {}
    for number, part in enumerate(parts):
        for name, indices, values in part.parts():
            size = part.sizes.get(name) or int(indices[-1]) + 1
            dense = torch.zeros(size)
            dense[indices.long()] = values
            leaves[number, name] = dense.requires_grad_()
    return leaves


def dense_features(model, parts, leaves, rows):
    module = copy.deepcopy(model.module)
    replaced: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts):
        if part.kind == "bottleneck":
            for point in part.points:
                own = [name for name in part.names if name.startswith(f"{point}.")]
                hook = dense_block(part.settings(), {name.rpartition(".")[2]: leaves[number, name] for name in own})
                module.get_submodule(point).register_forward_hook(hook, with_kwargs=True)
            continue
        for weight in part.weights:
            total = replaced.get(weight, module.get_parameter(weight).detach())
            if part.kind == "sparse_delta":
                leaf = leaves[number, weight]
                added = F.pad(leaf, (0, total.numel() - len(leaf)))
            else:
                settings = part.settings()
                rank = settings["ranks"][weight]
                a, b = leaves[number, f"{weight}.A"].view(rank, -1), leaves[number, f"{weight}.B"].view(-1, rank)
                gate = leaves[number, f"{weight}.g"] if settings["shrinkage"] is not None else torch.ones(rank)
                factor = settings["alphas"][weight] / (rank**0.5 if settings["rank_stabilized"] else rank)
                added = torch.einsum("or,r,ri->oi", b, gate, a) * factor
            replaced[weight] = total + added.view(total.shape)
    for weight, tensor in replaced.items():
        owner, _, name = weight.rpartition(".")
        del module.get_submodule(owner)._parameters[name]
        setattr(module.get_submodule(owner), name, tensor)
    return model.answers(rows, module)


def dense_block(settings, tensors):
    """On the tiny CLIP a parallel block reads what the very module is given after which it adds."""

    def after(_, args, named, output):
        stream = output[0] if isinstance(output, tuple) else output
        parallel = settings["placement"] == "parallel"
        seen = (args[0] if args else named["hidden_states"]) if parallel else stream
        if settings["norm"]:
            seen = (seen - seen.mean(-1, keepdim=True)) / (seen.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        size, width = settings["size"], seen.shape[-1]
        inner = torch.einsum("...d,bd->...b", seen, tensors["down"].view(size, width)) + tensors["down_bias"]
        inner = {"relu": torch.relu, "gelu": F.gelu, "silu": lambda x: x * x.sigmoid()}[settings["activation"]](inner)
        added = torch.einsum("...b,db->...d", inner, tensors["up"].view(width, size)) + tensors["up_bias"]
        stream = stream + settings["scale"] * added
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    return after


@pytest.mark.parametrize("micro_batch", [4, 1])
@pytest.mark.parametrize("family", ["clip", "fused"])
def test_gradients_are_the_dense_masked_ones_and_micro_batches_add_up(subject, family, kind, micro_batch):
    if family == "fused" and kind.startswith("bottleneck"):
        pytest.skip("the reference knows where blocks of a CLIP read; fused weights are nothing to blocks")
    model = subject(family)
    parts = model.parts(kind)
    leaves = dense_leaves(parts)
    features = dense_features(model, parts, leaves, slice(None))
    loss_of(features).backward()
    with working_copy(model.module, *parts):
        for start in range(0, 4, micro_batch):
            rows = slice(start, start + micro_batch)
            found = model.answers(rows)
            torch.testing.assert_close(found, features[rows], rtol=1e-4, atol=1e-5)
            loss_of(found).backward()
            assert all(parameter.grad is None for parameter in model.module.parameters())
    torch.testing.assert_close(features.detach(), model.frozen_answers(*parts), rtol=1e-4, atol=1e-5)
    for number, (part, flat) in enumerate(zip(parts, flat_gradients(parts), strict=True)):
        wanted = [leaves[number, name].grad[indices.long()] for name, indices, _ in part.parts()]
        assert sum(bool(one.any()) for one in wanted) > 0.9 * len(wanted)  # a ReLU may be shut for all rows
        torch.testing.assert_close(flat, torch.cat(wanted), rtol=2e-3, atol=2e-4)


def test_only_the_adapter_learns_and_ctrl_c_leaves_the_model_as_it_was(subject, trace, place, kind):
    model, precision = subject(*place), place[1]
    parts = model.fresh(kind)
    born = [part.values.detach().clone() for part in parts]
    optimizers = [FlatAdamW(part.values) for part in parts]
    losses = []
    with pytest.raises(KeyboardInterrupt), working_copy(model.module, *parts) as copied:
        for step in range(4):
            for part in parts:
                part.draw(0, step, 0)
            with autocast(precision, "cpu"):
                loss = loss_of(model.answers())
            losses.append(loss.item())
            loss.backward()
            assert all(parameter.grad is None for parameter in model.module.parameters())
            for part, optimizer in zip(parts, optimizers, strict=True):
                assert bool(part.values.grad.isfinite().all()) and part.values.grad.any()
                optimizer.step(3e-3)
                part.settle(3e-3, step / 4)
            copied.fold()
        raise KeyboardInterrupt
    assert trace(model.module) == model.born
    assert losses[-1] < losses[0]
    for part, values in zip(parts, born, strict=True):
        assert not torch.equal(part.values, values)
        assert part.values.requires_grad and part.values.is_leaf


@pytest.mark.parametrize("family", ["clip", "fused"])
def test_what_is_trained_is_what_is_attached(subject, family, kind):
    model = subject(family)
    parts = model.parts(kind)
    wanted = model.frozen_answers(*parts)
    with working_copy(model.module, *parts) as copied, torch.no_grad():
        torch.testing.assert_close(model.answers(), wanted, rtol=1e-4, atol=1e-5)
        for part in parts:
            part.rescale(0.0)
        copied.fold()
        now = model.answers()
    torch.testing.assert_close(now, model.frozen_answers(), rtol=1e-5, atol=1e-6)


# ---- Stopped trainings

PROMPTS = (("red dog",), ("blue cat", "the metal plate"), ("scratched",))
QUICK = {
    "adapter": {"layers": "last-2", "tower": "both", "budget": 1600},
    "training": {"steps": 4, "batch_size": 8, "learning_rate": 1e-2},
    "data": {"shots": 4},
    "safety": {"average": 0.5, "agreement": 0.1},
}
MOVING = {"move_every": 1, "move_share": 0.5, "move_window": 2}
TRAININGS = {
    "sparse delta of entries": {"moves": MOVING},
    "sparse delta of rows": {"adapter": {"granularity": "row"}},
    "low rank": {"adapter": {"kind": "low_rank"}, "low_rank": {"rank": 2, "lora_dropout": 0.3}},
    "low rank, stabilised": {"adapter": {"kind": "low_rank"}, "low_rank": {"rank": 3, "rank_stabilized": True}},
    "low rank, gated": {"adapter": {"kind": "low_rank"}, "low_rank": {"rank": 3, "shrinkage": 20.0}},
    "hybrid": {"adapter": {"kind": "hybrid"}, "low_rank": {"rank": 1, "lora_dropout": 0.3}, "moves": MOVING},
    "bottleneck, sequential": {"adapter": {"kind": "bottleneck"}, "bottleneck": {"bottleneck_size": 6}},
    "bottleneck, parallel and pruned": {
        "adapter": {"kind": "bottleneck", "budget": 600},
        "bottleneck": {"bottleneck_size": 6, "form": "parallel", "bottleneck_dropout": 0.3},
    },
    "bottleneck with experts": {
        "adapter": {"kind": "bottleneck", "budget": 600},
        "bottleneck": {"bottleneck_size": 6, "experts": 3, "bottleneck_dropout": 0.2, "prune_rule": "random"},
    },
}


@pytest.fixture(scope="session")
def setting(tiny):
    def made(kind, device="cpu", **tables):
        fields = QUICK
        for table, values in {**TRAININGS[kind], **tables}.items():
            fields = overlay(fields, {table: values})
        if kind == "bottleneck, sequential":
            fields = overlay(fields, {"adapter": {"budget": 1000}})
        spec, backbone = build(fields), load_backbone(tiny("clip"), device=device)
        with torch.no_grad():
            text = class_texts(backbone, PROMPTS)
        return Setting(
            backbone, PROMPTS, text, plan(backbone.module, backbone.blocks, spec.adapter), spec, "float32", 4
        )

    return made


def views_of(made, dataset):
    layer = made.plan.first_layer["vision"]
    return encode_views(made.backbone, dataset, dataset.train, layer, views=2, augment="safe", seed=0)


def gone_on_with(made, views):
    """The whole training, and the same stopped after each of its steps and gone on with from bytes on a disk."""
    saved = []
    whole = learn(made, views, each=lambda state, _: saved.append(dump_tensors(kept(state))))
    assert len(saved) == 4
    for step, checkpoint in enumerate(saved[:-1], start=1):
        steps = []
        tensors = load_tensors(checkpoint)
        yield whole, learn(made, views, saved=tensors, each=lambda state, _, steps=steps: steps.append(state.step))
        assert steps == list(range(step + 1, 5))


def kept(state):
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.tensors().items()}


def test_a_training_stopped_after_any_step_goes_on_bitwise(setting, dataset, trace, kind):
    made = setting(kind)
    born, views = trace(made.backbone.module), None
    views = views_of(made, dataset)
    for whole, other in gone_on_with(made, views):
        for part, found in zip(whole.parts, other.parts, strict=True):
            assert part.names == found.names and part.settings() == found.settings()
            assert torch.equal(part.indices, found.indices) and torch.equal(part.values, found.values)
            assert bool(part.values.any())
        for name, parameter in whole.prototypes.named_parameters():
            assert torch.equal(parameter, other.prototypes.get_parameter(name))
        assert trace(made.backbone.module) == born


@pytest.mark.parametrize(
    ("kind_", "table", "calm"),
    [
        ("low rank", "low_rank", {"lora_dropout": 0.0}),
        ("hybrid", "low_rank", {"lora_dropout": 0.0}),
        ("bottleneck, parallel and pruned", "bottleneck", {"bottleneck_dropout": 0.0}),
        ("bottleneck with experts", "bottleneck", {"bottleneck_dropout": 0.0}),
        ("bottleneck with experts", "bottleneck", {"experts": 1}),
    ],
)
def test_random_choices_of_training_are_made_and_depend_on_the_seed_alone(setting, dataset, kind_, table, calm):
    values = []
    for more in ({}, {}, {table: {**TRAININGS[kind_][table], **calm}}):
        made = setting(kind_, **more)
        learned = learn(made, views_of(made, dataset))
        values.append(torch.cat([part.values.detach() for part in learned.parts]))
    assert torch.equal(values[0], values[1])
    assert not torch.allclose(values[0], values[2], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_only_the_adapter_learns_from_the_same_gradients(subject, trace, kind, dtype):
    here, there = subject(), subject("clip", dtype, "cuda")
    gradients = []
    for model in (here, there):
        parts = model.parts(kind)
        with working_copy(model.module, *parts):
            with autocast(dtype if model is there else "float32", str(next(model.module.parameters()).device)):
                loss = loss_of(model.answers())
            loss.backward()
        gradients.append(torch.cat([flat.cpu() for flat in flat_gradients(parts)]))
        assert trace(model.module) == model.born
    assert F.cosine_similarity(*gradients, dim=0) > (0.9999 if dtype == "float32" else 0.98)


@pytest.mark.gpu
def test_on_a_gpu_a_stopped_training_goes_on(setting, dataset, kind):
    made = setting(kind, device="cuda")
    for whole, other in gone_on_with(made, views_of(made, dataset)):
        for part, found in zip(whole.parts, other.parts, strict=True):
            torch.testing.assert_close(part.values, found.values, rtol=1e-4, atol=1e-6)
