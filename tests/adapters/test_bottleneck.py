import copy
import json
import threading
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kusabi.adapters.attach import attached, merge
from kusabi.adapters.bottleneck import Bottleneck
from kusabi.adapters.bottleneck_birth import fresh
from kusabi.adapters.bottleneck_form import Form
from kusabi.adapters.insertion import insertion_points
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.prune import Pruning
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import AdapterError

KINDS = ["clip", "siglip2", "altclip", "vit+bert", "dinov2+bert"]
ACTIVATIONS = {"relu": torch.relu, "gelu": F.gelu, "silu": F.silu}


def pictures(backbone, count=2):
    side = backbone.input_sizes.own
    return torch.linspace(-2, 2, count * 3 * side * side).sin().view(count, 3, side, side)


def embedded(backbone):
    texts = ["a red cat", "the blue plate with a dent"]
    return torch.cat([backbone.embed_images(pictures(backbone)), backbone.embed_texts(texts)])


def points_of(backbone, where="both"):
    blocks = [*backbone.blocks["vision"], *backbone.blocks["text"]]
    return insertion_points(backbone.module, blocks, where)


def taught(part, scale=0.2, seed=0):
    part.values.data = torch.randn(len(part), generator=torch.Generator().manual_seed(seed)) * scale
    return part


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


class DenseMasked(nn.Module):
    """The block of SparseAdapter's paper, written with whole matrices and masks that are multiplied in."""

    def __init__(self, part, point):
        super().__init__()
        self.form, width, size = part.form, part.form.widths[point], part.form.size
        shapes = {"down": (size, width), "down_bias": (size,), "up": (width, size), "up_bias": (width,)}
        for tensor, shape in shapes.items():
            values, mask = torch.full(shape, 7.0).double(), torch.zeros(shape).double()
            if f"{point}.{tensor}" in part.names:
                own = part.slices[f"{point}.{tensor}"]
                mask.view(-1)[part.indices[own].long()] = 1
                values.view(-1)[part.indices[own].long()] = part.values.data[own].double()
            self.register_buffer(f"{tensor}_mask", mask)
            self.register_parameter(tensor, nn.Parameter(values))

    def forward(self, x):
        tensor = {name: getattr(self, name) * getattr(self, f"{name}_mask") for name, _ in self.named_parameters()}
        if self.form.norm:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        inner = ACTIVATIONS[self.form.activation](x @ tensor["down"].T + tensor["down_bias"])
        return self.form.scale * (inner @ tensor["up"].T + tensor["up_bias"])


class Sequentially(nn.Module):
    def __init__(self, inner, block):
        super().__init__()
        self.inner, self.block = inner, block

    def forward(self, *args, **named):
        out = self.inner(*args, **named)
        return (out[0] + self.block(out[0]), *out[1:]) if isinstance(out, tuple) else out + self.block(out)


class Beside(Sequentially):
    def forward(self, *args, **named):
        out, seen = self.inner(*args, **named), args[0] if args else named["hidden_states"]
        return (out[0] + self.block(seen), *out[1:]) if isinstance(out, tuple) else out + self.block(seen)


def _post_norm_mlp(layer, block, x):
    return layer.output.LayerNorm(layer.output.dense(layer.intermediate(x)) + block(x) + x)


def put(module, path, wrapper, block):
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, wrapper(module.get_submodule(path), block))


def rebuild(backbone, part):
    # A copy of the model with dense masked blocks as ordinary modules at the places of the part.
    model = copy.copy(backbone)
    object.__setattr__(model, "module", copy.deepcopy(backbone.module))
    blocks = {}
    for point in part.points:
        blocks[point] = block = DenseMasked(part, point)
        if part.form.placement == "sequential":
            put(model.module, point, Sequentially, block)
        elif point.endswith(".layer_scale2"):  # h + scale2(mlp(x)) + block(x)
            layer = model.module.get_submodule(point.removesuffix(".layer_scale2"))
            layer.mlp = Beside(nn.Sequential(layer.mlp, layer.layer_scale2), block)
            layer.layer_scale2 = nn.Identity()
        elif point.endswith(".output.dense") and ".attention." not in point:
            layer = model.module.get_submodule(point.removesuffix(".output.dense"))
            layer.feed_forward_chunk = partial(_post_norm_mlp, layer, block)
        else:
            put(model.module, point, Beside, block)
    return model, blocks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("where", "form"),
    [
        ("both", {"placement": "sequential", "activation": "silu", "norm": True}),
        ("mlp", {"placement": "parallel", "activation": "gelu", "scale": 0.3, "biases": False}),
    ],
)
def test_outputs_and_gradients_are_those_of_dense_masked_blocks(tiny, kind, where, form):
    backbone = load_backbone(tiny(kind))
    backbone.module.double()
    object.__setattr__(backbone, "dtype", torch.float64)
    part = taught(fresh(Form(widths=points_of(backbone, where), size=3, **form), Pruning("random", 0.4))).double()
    model, blocks = rebuild(backbone, part)
    plain = embedded(backbone)
    weights = torch.linspace(-1, 1, plain.numel()).view(plain.shape).double()
    with attached(backbone.module, part):
        ours = embedded(backbone)
        (ours * weights).sum().backward()
    theirs = embedded(model)
    (theirs * weights).sum().backward()
    assert torch.allclose(ours, theirs, atol=1e-6) and not torch.allclose(ours, plain, atol=1e-3)
    own = part.values.grad
    for point, block in blocks.items():
        for tensor, parameter in block.named_parameters():
            if f"{point}.{tensor}" in part.names:
                at = part.slices[f"{point}.{tensor}"]
                wanted = parameter.grad.flatten()[part.indices[at].long()]
                assert torch.allclose(own[at], wanted, atol=1e-6, rtol=1e-4) and bool(wanted.any())
    assert all(parameter.grad is None for parameter in backbone.module.parameters())


def test_a_parallel_block_after_bare_attention_reads_its_named_input(tiny):
    backbone = load_backbone(tiny("clip"))
    part = taught(fresh(Form(widths=points_of(backbone, "attention"), size=3, placement="parallel")))
    model, _ = rebuild(backbone, part)
    with attached(backbone.module, part):
        ours = embedded(backbone)
    model.module.float()
    assert torch.allclose(ours, embedded(model), atol=1e-5)


class Meeting(nn.Linear):
    """Waits until another thread has come as far."""

    def __init__(self, width):
        super().__init__(width, width)
        self.together = threading.Barrier(2)

    def forward(self, x):
        self.together.wait(60)
        return super().forward(x)


def test_forwards_in_two_threads_each_add_what_a_parallel_block_saw_of_their_own():
    model = nn.Sequential(nn.ModuleDict({"mlp": Meeting(8), "layer_scale2": nn.Linear(8, 8)}))
    model[0].forward = lambda x: x + model[0]["layer_scale2"](model[0]["mlp"](x))
    widths, inputs = insertion_points(model, ["0"], "mlp"), torch.linspace(0, 9, 16).sin().view(2, 8)
    part, found = taught(fresh(Form(widths=widths, size=3, placement="parallel"))), {}

    def answer(number):
        with torch.no_grad():
            found[number] = model(inputs[number])

    with attached(model, part):
        threads = [threading.Thread(target=answer, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        model[0]["mlp"].together = threading.Barrier(1)
        assert all(torch.equal(found[number], model(inputs[number])) for number in range(2))


@pytest.mark.parametrize("kind", [*KINDS, "deit+roberta", "align"])
@pytest.mark.parametrize(("dtype", "placement"), [("float32", "parallel"), ("bfloat16", "sequential")])
def test_a_fresh_part_changes_no_bit_and_leaves_no_hook(tiny, digest, kind, dtype, placement):
    backbone = load_backbone(tiny(kind), dtype=dtype)
    blocks = backbone.blocks["text"] if kind == "align" else [*backbone.blocks["vision"], *backbone.blocks["text"]]
    points = insertion_points(backbone.module, blocks, "both")
    part = fresh(Form(widths=points, size=4, placement=placement, norm=True), Pruning("magnitude", 0.5))
    assert bool(part.values.any())
    before, state, hooked = embedded(backbone), digest(backbone.module), hooks(backbone.module)
    with attached(backbone.module, part):
        assert hooks(backbone.module) > hooked
        assert torch.equal(embedded(backbone), before)
    assert digest(backbone.module) == state and hooks(backbone.module) == hooked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("learning", [True, False])
def test_even_the_sign_of_a_zero_survives_birth_and_up_learns_from_it(dtype, learning):
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Identity()).to(dtype).requires_grad_(False)
    inputs = torch.ones(2, 4, dtype=dtype)
    module[0].weight.data.copy_(torch.tensor([-0.0, 0.0, 1.0, -2.0]).diag())
    module[0].weight.data[0] = -0.0
    part = fresh(Form(widths={"0": 4}, size=3, activation="gelu"), Pruning("random", 0.6))
    before = F.linear(inputs, module[0].weight)
    before[:, 0] = -0.0
    module[0].register_forward_hook(lambda *_: before)
    with torch.set_grad_enabled(learning), attached(module, part):
        after = module(inputs)
        assert torch.equal(after.detach().view(torch.int16), before.view(torch.int16))
    if learning:
        after.float().sum().backward()
        gradient = {name: part.values.grad[own] for name, own in part.slices.items()}
        assert bool(gradient["0.up"].any()) and bool(gradient["0.up_bias"].all())
        assert not bool(gradient["0.down"].any()) and not bool(gradient["0.down_bias"].any())


@pytest.mark.parametrize("raised", [None, RuntimeError, KeyboardInterrupt])
def test_leaving_restores_the_model_in_any_order_and_after_anything(tiny, digest, raised):
    backbone = load_backbone(tiny("clip"))
    weight = "vision_model.encoder.layers.1.mlp.fc1.weight"
    first, second = (taught(fresh(Form(widths=points_of(backbone), size=3)), seed=i) for i in (1, 2))
    delta = taught(SparseDelta({weight: torch.arange(50)}))
    before, state = embedded(backbone), digest(backbone.module)

    def gone():
        return torch.equal(embedded(backbone), before) and hooks(backbone.module) == 0

    with attached(backbone.module, first, delta), attached(backbone.module, second):
        together = embedded(backbone)
    assert gone()
    stacks = {part: ExitStack() for part in (first, delta, second)}
    for part, stack in stacks.items():
        stack.enter_context(attached(backbone.module, part))
    assert torch.equal(embedded(backbone), together) and not torch.equal(together, before)
    for part in (first, second, delta):
        stacks[part].close()
    assert gone()
    try:
        with attached(backbone.module, first, second, delta):
            if raised:
                raise raised
    except BaseException as error:
        assert type(error) is raised
    assert gone() and digest(backbone.module) == state


def test_joining_that_fails_halfway_leaves_no_hook(tiny, monkeypatch):
    backbone = load_backbone(tiny("clip"))
    part = fresh(Form(widths=points_of(backbone), size=3))
    last, real = backbone.module.get_submodule(part.points[-1]), nn.Module.register_forward_hook

    def failing(module, *args, **named):
        if module is last:
            raise KeyboardInterrupt
        return real(module, *args, **named)

    monkeypatch.setattr(nn.Module, "register_forward_hook", failing)
    with pytest.raises(KeyboardInterrupt), attached(backbone.module, part):
        pytest.fail("entered")
    assert hooks(backbone.module) == 0


def test_it_cannot_be_merged_and_trying_changes_nothing(tiny, digest):
    backbone = load_backbone(tiny("clip"))
    part, state = taught(fresh(Form(widths=points_of(backbone), size=2))), digest(backbone.module)
    with pytest.raises(AdapterError, match="a bottleneck computes beside the model and cannot be merged"):
        merge(backbone.module, SparseDelta({"logit_scale": torch.tensor([0])}), part)
    assert digest(backbone.module) == state and hooks(backbone.module) == 0


@pytest.mark.parametrize("experts", [1, 3])
def test_the_card_and_the_entries_build_the_same_part(tiny, experts):
    backbone = load_backbone(tiny("clip"))
    form = Form(widths=points_of(backbone), size=3, placement="parallel", scale=2, dropout=0.1, experts=experts, seed=5)
    part = taught(fresh(form, Pruning("random", 0.3)))
    card = json.loads(json.dumps(part.settings(), sort_keys=True))  # as a card: its points in another order
    twin = Bottleneck.build(card, {name: indices.clone() for name, indices, _ in part.parts()})
    assert list(part.sizes) == list(part.names) and part.sizes[f"{part.points[0]}.up"] == 3 * 16
    assert twin.settings() == part.settings() and twin.names == part.names and not bool(twin.values.any())
    twin.values.data.copy_(part.values.data)
    answers = []
    for one in (part, twin):
        with attached(backbone.module, one):
            one.draw(3, 1, 0)
            answers.append(embedded(backbone))
    assert torch.equal(*answers)


def test_misfits_are_all_named(tiny):
    backbone = load_backbone(tiny("clip"))
    fc2 = "vision_model.encoder.layers.0.mlp.fc2"
    widths = {"vision_model.encoder.layers.0.mlp": 8, "nowhere.mlp": 16, fc2: 16}
    part = fresh(Form(widths=widths, size=2, placement="parallel"))
    with pytest.raises(AdapterError) as refusal, attached(backbone.module, part):
        pytest.fail("entered")
    message = str(refusal.value)
    assert "vision_model.encoder.layers.0.mlp: a bottleneck of width 8 for an output of width 16" in message
    assert "nowhere.mlp: the model has no such module" in message
    assert f"{fc2}: a bottleneck of width 16 for an input of width 20" in message
    assert hooks(backbone.module) == 0


def test_scaling_is_exact_and_zero_is_the_frozen_model(tiny):
    backbone = load_backbone(tiny("clip"))
    part = taught(fresh(Form(widths=points_of(backbone), size=3)))
    before, values = embedded(backbone), part.values.data.clone()
    part.rescale(0.5)
    for name, own in part.slices.items():
        factor = 0.5 if name.rpartition(".")[2] in ("up", "up_bias") else 1
        assert torch.equal(part.values.data[own], values[own] * factor)
    part.rescale(0.0)
    with attached(backbone.module, part):
        assert torch.equal(embedded(backbone), before)
    assert bool(part.values.any())


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
def test_casts_leave_the_indices_integers_and_the_cast_part_works(tiny, cast):
    backbone = load_backbone(tiny("clip"))
    part = taught(fresh(Form(widths=points_of(backbone), size=3), Pruning("random", 0.5)))
    indices = part.indices.clone()
    with attached(backbone.module, part):
        wanted = embedded(backbone)
    part.to(cast)
    assert part.indices.dtype == torch.int32 and torch.equal(part.indices, indices)
    with attached(backbone.module, part):
        assert torch.allclose(embedded(backbone), wanted, atol=0.01)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("placement", ["sequential", "parallel"])
def test_half_precision_models_keep_their_type_and_teach_fp32_values(tiny, dtype, placement):
    exact, half = load_backbone(tiny("vit+bert")), load_backbone(tiny("vit+bert"), dtype=dtype)
    part = taught(fresh(Form(widths=points_of(exact), size=3, placement=placement, norm=True)), 0.1)
    with attached(exact.module, part):
        wanted = embedded(exact)
    seen = []
    with working_copy(half.module, part):
        half.module.vision_model.layers[0].register_forward_hook(lambda _, args, out: seen.append(out))
        answer = embedded(half)
    answer.sum().backward()
    assert seen[0].dtype == half.dtype and part.values.grad.dtype == torch.float32 and bool(part.values.grad.any())
    assert torch.allclose(answer, wanted, atol=0.1)


def test_under_autocast_a_block_computes_in_half_precision_and_the_stream_stays_as_it_was():
    module = nn.Sequential(nn.Identity(), nn.Identity())
    module[0].weight = nn.Parameter(torch.zeros(8), requires_grad=False)  # says the width
    part = taught(fresh(Form(widths={"0": 8}, size=4, biases=False)), 1.0)
    inputs = torch.linspace(-1, 1, 16).sin().view(2, 8)
    with attached(module, part), torch.autocast("cpu", torch.bfloat16):
        answer = module(inputs)
    down, up = (part.values.data[part.slices[f"0.{t}"]].bfloat16() for t in ("down", "up"))
    inner = torch.relu(inputs.bfloat16() @ down.view(4, 8).T)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, inputs + (inner @ up.view(8, 4).T).float())
    with attached(module, part), torch.autocast("cpu", torch.float16):
        assert module(inputs.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("placement", ["sequential", "parallel"])
def test_a_compiled_attached_model_answers_the_same(tiny, placement):
    backbone = load_backbone(tiny("dinov2+bert"))
    tower, pixels = backbone.module.vision_model, pictures(backbone)
    tower.encoder.layer = tower.encoder.layer[:1]
    widths = insertion_points(backbone.module, backbone.blocks["vision"][:1], "both")
    part = taught(fresh(Form(widths=widths, size=3, placement=placement), Pruning("random", 0.5)))
    plain = tower(pixel_values=pixels).pooler_output
    with attached(backbone.module, part):
        wanted = tower(pixel_values=pixels).pooler_output
        torch._dynamo.reset()
        answer = torch.compile(tower, backend="eager", fullgraph=True)(pixel_values=pixels).pooler_output
    assert torch.equal(answer, wanted) and not torch.allclose(answer, plain, atol=1e-3)
    gradients = [torch.autograd.grad(one.sum(), part.values)[0] for one in (answer, wanted)]
    assert torch.allclose(*gradients, atol=1e-5) and bool(gradients[0].any())


@pytest.mark.gpu
@pytest.mark.parametrize("placement", ["sequential", "parallel"])
def test_on_cuda_it_answers_as_on_the_cpu_wherever_the_part_is(tiny, placement):
    backbone, far = load_backbone(tiny("vit+bert")), load_backbone(tiny("vit+bert"), device="cuda")
    form = Form(widths=points_of(backbone), size=3, placement=placement, experts=2, dropout=0.5)
    part = taught(fresh(form, Pruning("random", 0.5)))
    with attached(backbone.module, part):
        wanted = embedded(backbone)
    for place in ("cpu", "cuda"):
        part.to(place)
        with attached(far.module, part):
            assert torch.allclose(embedded(far).cpu(), wanted, atol=1e-3)
            part.draw(0, 1, 0)
            assert not torch.allclose(embedded(far).cpu(), wanted, atol=1e-3)
    losses = [lambda: far.embed_images(pictures(far))[:, 0].square().sum()]
    pruned = fresh(form, Pruning("grasp", 0.5), module=far.module, losses=losses)
    assert pruned.values.device.type == "cuda" and len(pruned) < sum(pruned.sizes.values())


def open_block(dropout=0.5, width=64):
    # A block that answers with its input where that is positive, so that masks are seen.
    module = nn.Sequential(nn.Identity())
    module[0].weight = nn.Parameter(torch.zeros(width), requires_grad=False)
    part = fresh(Form(widths={"0": width}, size=width, biases=False, dropout=dropout))
    part.values.data = torch.cat([torch.eye(width).flatten()] * 2)
    return module, part


def test_dropout_is_a_function_of_the_draw_and_absent_without_one():
    module, part = open_block()
    inputs = torch.ones(40, 64)

    def hidden(*draw):
        part.draw(*draw)
        added = module(inputs) - 1
        assert bool(((added == 0) | (added == 2)).all()), "what is left is scaled up"
        return added == 0

    with attached(module, part):
        first = hidden(1, 2, 0)
        assert 0.45 < first.float().mean() < 0.55 and torch.equal(hidden(1, 2, 0), first)
        for other in ((1, 2, 1), (1, 3, 0), (2, 2, 0)):
            assert 0.4 < (hidden(*other) ^ first).float().mean() < 0.6
        with torch.no_grad():
            assert bool((module(inputs) == 2).all())
        part.settle(0.1, 0.5)
        assert bool((module(inputs) == 2).all())
        part.draw(1, 2, 0)
    with attached(module, part):
        assert bool((module(inputs) == 2).all()), "a draw of a training that broke off is forgotten"


def test_points_draw_masks_of_their_own():
    module = nn.Sequential(nn.Identity(), nn.Identity())
    for one in module:
        one.weight = nn.Parameter(torch.zeros(64), requires_grad=False)
    part = fresh(Form(widths={"0": 64, "1": 64}, size=64, biases=False, dropout=0.5))
    part.values.data = torch.cat([torch.eye(64).flatten()] * 4)
    seen = []
    with attached(module, part):
        for one in module:
            one.register_forward_hook(lambda _, args, out: seen.append((out - args[0]) == 0))
        part.draw(0, 0, 0)
        module(torch.ones(10, 64))
    assert not torch.equal(*seen)
