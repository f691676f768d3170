"""Attached models compile whole; to swap an adapter that is added to weights does not compile again."""

import copy

import pytest
import torch
from torch import nn

from kusabi.adapters.attach import attached
from kusabi.adapters.merged_training import working_copy
from kusabi.errors import AdapterError

PICTURES = torch.linspace(0, 90, 2 * 3 * 24 * 24).sin().view(2, 3, 24, 24)


class Tower(nn.Module):
    """What users compile: the vision tower alone, in the model's own dtype."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pictures):
        return self.module.get_image_features(pixel_values=pictures).pooler_output


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """The eager backend, and how often it was asked."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph.forward


def test_an_attached_model_compiles_whole_and_answers_alike(subject, kind):
    model = subject()
    tower, parts, backend = Tower(model.module), model.parts(kind), Counting()
    with torch.no_grad():
        frozen = tower(PICTURES)
        with attached(model.module, *parts):
            wanted = tower(PICTURES)
            compiled = torch.compile(tower, backend=backend, fullgraph=True)
            assert torch.equal(compiled(PICTURES), wanted)
            assert torch.equal(compiled(PICTURES), wanted)
    assert backend.graphs == 1 and not torch.allclose(wanted, frozen, atol=1e-2)


def test_swaps_of_adapters_that_are_added_to_weights_never_compile_again(subject, kinds):
    model = subject()
    tower, backend = Tower(model.module), Counting()
    compiled = torch.compile(tower, backend=backend, fullgraph=True)
    with torch.no_grad():
        frozen = compiled(PICTURES)
        assert torch.equal(frozen, tower(PICTURES))
        for kind in kinds:
            if kind.startswith("bottleneck"):
                continue
            for seed in (0, 1):
                with attached(model.module, *model.parts(kind, seed)):
                    found = compiled(PICTURES)
                    assert torch.equal(found, tower(PICTURES)) and not torch.equal(found, frozen)
            assert torch.equal(compiled(PICTURES), frozen)
    assert backend.graphs == 1


def test_an_attached_model_is_exported_with_the_adapter_in_it(subject, mergeable):
    model = subject()
    tower, parts = Tower(copy.deepcopy(model.module)), model.parts(mergeable)
    with torch.no_grad(), attached(tower.module, *parts):
        wanted = tower(PICTURES)
        program = torch.export.export(tower, (PICTURES,))
        assert torch.equal(program.module()(PICTURES), wanted)
        assert not torch.allclose(wanted, Tower(model.module)(PICTURES), atol=1e-2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # of inductor itself
@pytest.mark.slow
@pytest.mark.parametrize("kind_", ["hybrid", "bottleneck, parallel and pruned"])
def test_inductor_answers_alike(subject, kind_):
    model = subject()
    tower, parts = Tower(model.module), model.parts(kind_)
    with torch.no_grad(), attached(model.module, *parts):
        found = torch.compile(tower, fullgraph=True)(PICTURES)
        torch.testing.assert_close(found, tower(PICTURES), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_an_attached_model_compiles_whole_and_answers_alike(subject, kind):
    model = subject("clip", "float32", "cuda")
    tower, parts, pictures = Tower(model.module), model.parts(kind), PICTURES.cuda()
    with torch.no_grad(), attached(model.module, *parts):
        compiled = torch.compile(tower, backend="eager", fullgraph=True)
        assert torch.equal(compiled(pictures), tower(pictures))


def test_a_compiled_model_trains_on_its_working_copy(subject):
    model = subject()
    tower, parts = Tower(model.module), model.parts("sparse delta of entries")
    compiled, gradients = torch.compile(tower, backend="eager", fullgraph=True), []
    for run in (tower, compiled):
        with working_copy(model.module, *parts):
            run(PICTURES).sin().sum().backward()
        gradients.append(parts[0].values.grad.clone())
        parts[0].values.grad = None
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_a_model_that_was_compiled_before_answers_with_what_is_attached(subject, kind):
    model = subject()
    tower, one, other = Tower(model.module), model.parts(kind), model.parts(kind, 1)
    compiled = torch.compile(tower, backend="eager", fullgraph=True)
    with torch.no_grad():
        frozen = compiled(PICTURES)
        for parts in (one, other, one):
            with attached(model.module, *parts):
                assert torch.equal(compiled(PICTURES), tower(PICTURES))
                assert not torch.allclose(compiled(PICTURES), frozen, atol=1e-2)
            assert torch.equal(compiled(PICTURES), frozen)
        with attached(model.module, *one):
            alone = compiled(PICTURES)
            with attached(model.module, *other):
                assert torch.equal(compiled(PICTURES), tower(PICTURES))
                assert not torch.allclose(compiled(PICTURES), alone, atol=1e-2)
            assert torch.equal(compiled(PICTURES), alone)
        assert torch.equal(compiled(PICTURES), frozen)


@pytest.mark.gpu
def test_on_a_gpu_a_model_that_was_compiled_before_answers_with_what_is_attached(subject, kind):
    model = subject("clip", "float32", "cuda")
    tower, pictures = Tower(model.module), PICTURES.cuda()
    compiled = torch.compile(tower, backend="eager", fullgraph=True)
    with torch.no_grad():
        frozen = compiled(pictures)
        for seed in (0, 1):
            with attached(model.module, *model.parts(kind, seed)):
                assert torch.equal(compiled(pictures), tower(pictures)) and not torch.equal(compiled(pictures), frozen)
        assert torch.equal(compiled(pictures), frozen)


def test_a_compiled_model_is_refused_in_place_of_the_model_itself(subject, kind):
    model = subject()
    compiled, parts = torch.compile(model.module, backend="eager"), model.parts(kind)
    for joined in (attached(compiled, *parts), working_copy(compiled, *parts)):
        with pytest.raises(AdapterError, match="this is a compiled model, not the model itself"), joined:
            pass


@pytest.mark.parametrize("kind_", ["low rank", "low rank, gated", "hybrid", "bottleneck, sequential"])
def test_what_trains_by_hooks_trains_in_a_model_that_was_compiled_before(subject, kind_):
    model = subject()
    tower, parts = Tower(model.module), model.parts(kind_)
    compiled, gradients = torch.compile(tower, backend="eager"), []
    frozen = compiled(PICTURES)
    for run in (tower, compiled):
        with working_copy(model.module, *parts):
            run(PICTURES).sin().sum().backward()
        gradients.append(torch.cat([part.values.grad.clone() for part in parts]))
        for part in parts:
            part.values.grad = None
        assert torch.equal(compiled(PICTURES), frozen)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)
