from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.bottleneck_birth import fresh
from kusabi.adapters.bottleneck_form import Form
from kusabi.adapters.insertion import insertion_points
from kusabi.adapters.prune import Pruning, birth_scores, eager_attention, prune
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import AdapterError

WIDTH, SIZE = 6, 4
BATCHES = [torch.linspace(-2, 2, 5 * WIDTH).mul(k).sin().view(5, WIDTH).double() for k in (3, 8)]


class Stack(nn.Module):
    """Two linear layers, each followed by a block written plainly: the reference's own parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).mul(number + 5).sin().view_as(parameter))
        self.requires_grad_(False).double()

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Written(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.stack = Stack()
        for point in part.points:
            for tensor, shape in (
                ("down", (SIZE, WIDTH)),
                ("down_bias", SIZE),
                ("up", (WIDTH, SIZE)),
                ("up_bias", WIDTH),
            ):
                values = part.values.data[part.slices[f"{point}.{tensor}"]].double()
                self.register_parameter(f"{point}_{tensor}", nn.Parameter(values.clone().view(shape)))

    def block(self, point, h):
        down, down_bias, up, up_bias = (getattr(self, f"{point}_{t}") for t in ("down", "down_bias", "up", "up_bias"))
        return h + torch.nn.functional.silu(h @ down.T + down_bias) @ up.T + up_bias

    def forward(self, x):
        return self.block("second", self.stack.second(torch.tanh(self.block("first", self.stack.first(x)))))


def drawn(seed=0, activation="silu"):
    part = fresh(Form(widths={"first": WIDTH, "second": WIDTH}, size=SIZE, activation=activation, seed=seed))
    part.values.data = torch.randn(len(part), generator=torch.Generator().manual_seed(seed)) * 0.5
    return part.double()


def losses_of(module):
    return [lambda batch=batch: module(batch).square().mean().log() for batch in BATCHES]


def flat(written, gradients):
    # The reference's tensors in the order of the part; biases zero.
    named = dict(zip((name for name, _ in written.named_parameters() if "stack" not in name), gradients, strict=True))
    return torch.cat([torch.zeros_like(g.flatten()) if "bias" in n else g.flatten() for n, g in named.items()])


def weights_only(part, scores):
    scores = scores.clone()
    for name, own in part.slices.items():
        if "bias" in name:
            scores[own] = 0
    return scores


def test_snip_is_the_summed_gradient_times_the_weight():
    part, module = drawn(), Stack()
    written = Written(part)
    parameters = [p for n, p in written.named_parameters() if "stack" not in n]
    gradient = torch.autograd.grad(sum(loss() for loss in losses_of(written)), parameters)
    wanted = flat(written, [(g * p).abs() for g, p in zip(gradient, parameters, strict=True)])
    scores = weights_only(part, birth_scores(part, "snip", module, losses_of(module)))
    assert torch.allclose(scores, wanted.detach(), rtol=1e-9) and bool((wanted > 0).any())
    assert sum(len(m._forward_hooks) for m in module.modules()) == 0


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient_with_its_sign():
    part, module = drawn(), Stack()
    written = Written(part)
    names = [name for name, _ in written.named_parameters() if "stack" not in name]
    matrices = [name for name in names if "bias" not in name]
    start = {name: p.detach() for name, p in written.named_parameters()}

    def total(vector):
        pieces = vector.split([start[name].numel() for name in matrices])
        moved = {**start, **{n: v.view_as(start[n]) for n, v in zip(matrices, pieces, strict=True)}}
        answers = [functional_call(written, moved, (batch,)) for batch in BATCHES]
        return sum(answer.square().mean().log() for answer in answers)

    theta = torch.cat([start[name].flatten() for name in matrices])
    gradient = torch.autograd.functional.jacobian(total, theta)
    hessian = torch.autograd.functional.hessian(total, theta)
    wanted = theta * (hessian @ gradient)
    matrix = torch.cat([torch.full((len(i),), "bias" not in name) for name, i, _ in part.parts()])
    scores = birth_scores(part, "grasp", module, losses_of(module))[matrix]
    assert torch.allclose(scores, wanted, rtol=1e-7, atol=1e-9)
    assert bool((wanted < -1e-3).any()) and bool((wanted > 1e-3).any())
    prune(part, Pruning("grasp", rounds=1), 20, module, losses_of(module))
    kept = set(wanted.topk(20).indices.tolist())
    ends, position = [], 0
    for name, indices, _ in part.parts():
        if "bias" not in name:
            ends += (indices + position).tolist()
            position += WIDTH * SIZE
    assert set(ends) == kept, "the highest stay, as in the authors' code; not the largest amounts"


def test_synflow_is_the_gradient_of_what_flows_through_absolute_weights():
    part = drawn(activation="relu")
    wanted = []
    for point in part.points:
        down, up = (part.values.data[part.slices[f"{point}.{t}"]].abs() for t in ("down", "up"))
        down, up = down.view(SIZE, WIDTH).requires_grad_(), up.view(WIDTH, SIZE).requires_grad_()
        flow = (torch.relu(torch.ones(1, WIDTH).double() @ down.T) @ up.T).sum()
        gradients = torch.autograd.grad(flow, [down, up])
        wanted += [(down * gradients[0]).flatten(), torch.zeros(SIZE)]
        wanted += [(up * gradients[1]).flatten(), torch.zeros(WIDTH)]
    assert torch.allclose(birth_scores(part, "synflow"), torch.cat(wanted).detach(), rtol=1e-12)


def test_magnitude_and_random_need_no_model():
    part = drawn()
    assert torch.equal(birth_scores(part, "magnitude"), part.values.data.abs())
    first = birth_scores(part, "random")
    assert torch.equal(first, birth_scores(drawn(), "random")) and len(first) == len(part)
    assert not torch.equal(first, birth_scores(drawn(1), "random"))


def test_snip_is_blind_where_up_is_zero_and_the_birth_is_not():
    module = Stack().float()
    losses = [lambda batch=batch: module(batch.float()).square().mean() for batch in BATCHES]
    form = Form(widths={"first": WIDTH, "second": WIDTH}, size=SIZE)
    part = fresh(form)
    gradient = torch.zeros(len(part))
    handles = part.join(module)
    for loss in losses:
        gradient += torch.autograd.grad(loss(), part.values)[0]
    for handle in handles:
        handle.remove()
    assert not bool(weights_only(part, gradient * part.values.data).any()), "the trap: every score is zero"
    for rule in ("snip", "synflow"):
        with pytest.raises(AdapterError, match=f"all {rule} scores are zero"):
            birth_scores(part, rule, module, losses)
    pruned = fresh(form, Pruning("snip", 0.5), module=module, losses=losses)
    assert len(pruned) == 48 + 20 and not bool(torch.cat([v for n, _, v in pruned.parts() if ".up" in n]).any())
    first = dict(zip(pruned.names, pruned.counts, strict=True))
    assert set(first.values()) != {12} and first["first.down"] and first["first.up"], "not the first entries either"
    lowest = torch.arange(first["second.down"])
    assert not torch.equal(pruned.indices[pruned.slices["second.down"]], lowest)


@pytest.mark.parametrize("rule", ["snip", "grasp"])
def test_gradient_rules_run_through_fused_attention(tiny, rule):
    backbone = load_backbone(tiny("clip"))
    module, side = backbone.module, backbone.input_sizes.own
    pixels = torch.linspace(-2, 2, 6 * side * side).sin().view(2, 3, side, side)
    losses = [lambda: backbone.embed_images(pixels)[:, 0].square().sum()]
    form = Form(widths=insertion_points(module, backbone.blocks["vision"], "both"), size=3)
    part = fresh(form, Pruning(rule, 0.4), module=module, losses=losses)
    weights, biases = form.totals()
    assert len(part) == round(0.4 * weights) + biases
    local = fresh(form, Pruning(rule, 0.5, scope="local"), module=module, losses=losses)
    assert all(count == 24 for name, count in zip(local.names, local.counts, strict=True) if "bias" not in name)


def test_only_plain_attention_is_differentiated_twice(tiny):
    backbone = load_backbone(tiny("clip"))
    side = backbone.input_sizes.own
    pixels = torch.ones(1, 3, side, side).requires_grad_()

    def curvature():
        answer = backbone.embed_images(pixels)[0, 0]
        first = torch.autograd.grad(answer, pixels, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), pixels)[0]

    assert backbone.module.config.vision_config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product"):
        curvature()
    with eager_attention():
        assert bool(curvature().any())


def test_global_takes_the_best_of_all_local_the_best_of_each_and_ties_go_to_the_earlier():
    def survivors(scope, values, kept):
        part = fresh(Form(widths={"first": 2, "second": 2}, size=1, biases=False))
        part.values.data = torch.tensor(values)
        prune(part, Pruning("magnitude", scope=scope), kept, None, ())
        assert part.values.tolist() == [
            values[i + 2 * n] for n, (_, at, _) in enumerate(part.parts()) for i in at.tolist()
        ]
        return [at.tolist() for _, at, _ in part.parts()]

    values = [-9.0, 8.0, 7.0, -6.0, 1.0, 2.0, 3.0, -4.0]
    assert survivors("global", values, 4) == [[0, 1], [0, 1], [], []]
    assert survivors("local", values, 4) == [[0], [0], [1], [1]]
    assert survivors("global", [1.0] * 8, 3) == [[0, 1], [0], [], []]
    assert survivors("local", [1.0] * 8, 5) == [[0, 1], [0], [0], [0]]


def test_rounds_keep_a_power_of_the_density_and_never_bring_an_entry_back(monkeypatch):
    seen, place = [], Bottleneck.place

    def watching(part, counts, indices, values):
        place(part, counts, indices, values)
        seen.append({f"{name}{i}" for name, at, _ in part.parts() for i in at.tolist()})

    monkeypatch.setattr(Bottleneck, "place", watching)
    form = Form(widths={"first": WIDTH, "second": WIDTH}, size=SIZE, biases=False)
    part = fresh(form, Pruning("synflow", density=0.25, rounds=4))
    assert [len(names) for names in seen] == [68, 48, 34, 24] and len(part) == 24
    assert all(later < earlier for earlier, later in pairwise(seen))
    assert seen[-1] != {f"{n}{i}" for n, at, _ in fresh(form, Pruning("synflow", 0.25)).parts() for i in at.tolist()}


def test_losses_that_teach_nothing_are_refused():
    part, module = drawn(), Stack()
    with pytest.raises(AdapterError, match="pruning by snip needs the model"):
        birth_scores(part, "snip")
    for loss in (lambda: torch.ones(()), lambda: module.first.weight.sum(), lambda: torch.ones((), requires_grad=True)):
        with pytest.raises(AdapterError, match="the loss does not depend on the adapter"):
            birth_scores(part, "snip", module, [loss])
    with pytest.raises(AdapterError, match="snip scores are not finite"):
        birth_scores(part, "snip", module, [lambda: module(BATCHES[0]).sum() * float("nan")])
    with torch.no_grad():
        assert bool(birth_scores(part, "snip", module, losses_of(module)).any())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "wanda"}, "rule 'wanda' is not known"),
        ({"scope": "layer"}, "scope 'layer' is not known"),
        ({"density": 0.0}, "density 0.0 is not in"),
        ({"density": 1.5}, "density 1.5 is not in"),
        ({"widen": 0}, "must be 1 or more"),
        ({"rounds": 0}, "must be 1 or more"),
    ],
)
def test_prunings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(AdapterError, match=message):
        Pruning(**changes)
