"""Fresh adapters change nothing, leaving restores everything, models that do not fit are refused, scales are exact."""

import copy
import linecache
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kusabi.adapters import attach
from kusabi.adapters.attach import attached
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.part import Inserted, WeightDelta
from kusabi.errors import AdapterError

ADAPTERS = str(Path(attach.__file__).parent)


def equal_bits(one, other):
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_a_fresh_adapter_changes_no_output_bitwise(subject, place, kind):
    model = subject(*place)
    parts = model.fresh(kind)
    assert all(len(part) for part in parts)
    assert equal_bits(model.frozen_answers(*parts), model.frozen_answers())
    learned = model.frozen_answers(*model.parts(kind))
    assert bool(learned.isfinite().all()) and not torch.allclose(learned, model.frozen_answers(), atol=1e-2)


@pytest.mark.parametrize("raised", [None, RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_leaving_restores_everything_however_it_is_left(subject, trace, kind, raised):
    model = subject()
    before = model.frozen_answers()
    try:
        with attached(model.module, *model.parts(kind)) as joined:
            assert joined is model.module and trace(joined) != model.born
            if raised:
                raise raised
    except BaseException as error:
        assert type(error) is raised
    assert trace(model.module) == model.born and equal_bits(model.frozen_answers(), before)


def test_an_exception_in_the_inner_context_leaves_the_outer_adapter_on(subject, kind):
    model = subject("siglip", "bfloat16")
    outer, inner = model.parts(kind), model.parts(kind, seed=1)
    alone = model.frozen_answers(*outer)
    with attached(model.module, *outer):
        with pytest.raises(ZeroDivisionError), attached(model.module, *inner):
            assert not torch.equal(model.answers(), alone)
            raise ZeroDivisionError
        with torch.no_grad():
            assert equal_bits(model.answers(), alone)
        with pytest.raises(AdapterError, match="attached already"), attached(model.module, *outer):
            pytest.fail("entered")
        with torch.no_grad():
            assert equal_bits(model.answers(), alone)


def interrupted(step, at=None, inside=""):
    """Ctrl-C before line ``at`` of the adapters' own files while ``step()`` runs; how many lines ran.

    Lines of the function ``inside`` do not count, and lines that begin a context do not: Python comes by them again
    before it calls the context's end, where nothing can be done.
    """
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ADAPTERS):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and frame.f_code.co_name != inside and not line.startswith("with "):
            lines += 1
            if lines == at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(before)
    return lines


def some(lines):
    """Some from everywhere, and the last ones all: there hooks and weights are in place."""
    return sorted({*range(1, lines + 1, max(1, lines // 25)), *range(max(1, lines - 30), lines + 1)})


@pytest.mark.parametrize("way", [attached, working_copy])
def test_ctrl_c_anywhere_while_joining_leaves_no_trace(subject, trace, kind, way):
    model = subject("fused")
    parts = model.parts(kind)
    for _ in range(2):  # what is made once for a model is there the second time
        context = way(model.module, *parts)
        lines = interrupted(context.__enter__)
        context.__exit__(None, None, None)
    assert lines > 20
    for at in some(lines):
        with pytest.raises(KeyboardInterrupt):
            interrupted(way(model.module, *parts).__enter__, at)
        assert trace(model.module) == model.born, f"line {at} of {lines}"


@pytest.mark.parametrize("way", [attached, working_copy])
def test_ctrl_c_anywhere_while_leaving_leaves_no_trace(subject, trace, kind, way):
    model = subject("fused")
    parts = model.parts(kind)

    def leaving():
        context = way(model.module, *parts)
        context.__enter__()
        return lambda: context.__exit__(None, None, None)

    lines = interrupted(leaving(), inside=way.__name__)
    for at in some(lines):
        with pytest.raises(KeyboardInterrupt):
            interrupted(leaving(), at, inside=way.__name__)
        assert trace(model.module) == model.born, f"line {at} of {lines}"


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_adapters_of_any_kinds_come_and_go_in_any_order(subject, trace, kinds, data):
    model = subject(*data.draw(st.sampled_from([("clip", "float32"), ("clip", "bfloat16"), ("fused", "float16")])))
    adapters = [model.parts(data.draw(st.sampled_from(kinds)), seed) for seed in range(3)]
    alike, other = copy.deepcopy(adapters), copy.deepcopy(model.module)
    present: dict[int, ExitStack] = {}
    toggles = data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=7))
    for which in [*toggles, *(i for i in range(3) if toggles.count(i) % 2)]:
        if which in present:
            present.pop(which).close()
        else:
            present[which] = ExitStack()
            present[which].enter_context(attached(model.module, *adapters[which]))
        with torch.no_grad(), attached(other, *(part for i in present for part in alike[i])):
            assert equal_bits(model.answers(), model.answers(module=other))
    assert not present and trace(model.module) == model.born


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_two_hundred_swaps_of_every_kind_leave_no_trace(subject, trace, kinds, dtype):
    model = subject("fused", dtype)
    adapters = [model.parts(kind, seed) for seed in range(2) for kind in kinds]
    for swap in range(12):  # of eighteen adapters
        for parts in adapters:
            try:
                with attached(model.module, *parts):
                    if swap == 7:
                        raise ArithmeticError
            except ArithmeticError:
                assert trace(model.module) == model.born


def named_points(parts):
    """What a model may lack, part by part."""
    return [list(part.weights) if isinstance(part, WeightDelta) else list(part.points) for part in parts]


def test_a_model_that_lacks_everything_is_refused_listing_all_of_it(subject, trace, kind):
    model, other = subject(), subject("fused")
    parts = model.parts(kind)
    for part, names in zip(parts, named_points(parts), strict=True):
        for way in (attached, working_copy):
            with pytest.raises(AdapterError, match="does not fit this model") as refusal, way(other.module, part):
                pytest.fail("entered")
            assert all(name in str(refusal.value) for name in names[:20])
            assert (f"and {len(names) - 20} more" in str(refusal.value)) == (len(names) > 20)
    with pytest.raises(AdapterError), attached(other.module, *other.parts(kind), *parts):
        pytest.fail("entered")
    assert trace(other.module) == other.born


def test_a_model_of_other_widths_is_refused_listing_all_of_them_and_not_what_fits(subject, trace, twin, kind):
    model = subject("vit+roberta")
    other, parts = twin(model.module), model.parts(kind)
    narrowed = model.blocks["vision"][-1]
    for layer in other.get_submodule(narrowed).modules():
        if isinstance(layer, nn.Linear):
            layer.out_features //= 4
            layer.weight.data = layer.weight.data[: layer.out_features]
    before = trace(other)
    for part, names in zip(parts, named_points(parts), strict=True):
        with pytest.raises(AdapterError) as refusal, attached(other, part):
            pytest.fail("entered")
        wrong = [name for name in names if name.startswith(f"{narrowed}.")]
        assert wrong and all(f"{name}: " in str(refusal.value) for name in wrong)
        assert not any(f"{name}: " in str(refusal.value) for name in names if name not in wrong)
    assert trace(other) == before


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
def test_a_cast_leaves_the_indices_integers_and_the_adapter_adds_what_its_values_say(subject, kind, cast):
    model = subject()
    parts, rounded = model.parts(kind), model.parts(kind)
    for part, other in zip(parts, rounded, strict=True):
        part.half() if cast == torch.float16 else part.to(cast)
        other.values.data = other.values.data.to(cast).float()
        assert part.values.dtype == cast and part.indices.dtype == torch.int32
        assert torch.equal(part.indices, other.indices)
    wanted = model.frozen_answers(*rounded)
    assert equal_bits(model.frozen_answers(*parts), wanted)
    with working_copy(model.module, *parts) as copied:
        copied.fold()
        torch.testing.assert_close(model.answers().detach(), wanted, rtol=1e-4, atol=1e-4)


def streams(model, parts, point):
    """What leaves one module, with and without parts."""
    seen = []

    def see(_, __, output):
        seen.append((output[0] if isinstance(output, tuple) else output).double())

    for some_parts in ((), parts):
        with torch.no_grad(), attached(model.module, *some_parts):
            handle = model.module.get_submodule(point).register_forward_hook(see)
            model.answers()
            handle.remove()
    return seen


def test_scales_are_exact(subject, kind):
    model = subject()
    whole = model.parts(kind)
    same, half, none = (model.parts(kind) for _ in range(3))
    for scaled, alpha in ((same, 1.0), (half, 0.5), (none, 0.0)):
        for part in scaled:
            part.rescale(alpha)
    for part, other, halved in zip(whole, same, half, strict=True):
        assert equal_bits(part.values.data, other.values.data)
        if isinstance(part, WeightDelta):
            assert len(part.weights) == 24
            for weight in part.weights:
                assert torch.equal(part.added(weight)[1] / 2, halved.added(weight)[1]) and part.added(weight)[1].any()
        elif isinstance(part, Inserted):
            frozen, added = streams(model, whole, part.points[0])
            frozen_again, added_half = streams(model, half, part.points[0])
            assert torch.equal(frozen, frozen_again) and not torch.allclose(frozen, added, atol=0.01)
            torch.testing.assert_close(added_half - frozen, (added - frozen) / 2, rtol=1e-4, atol=1e-5)
    assert equal_bits(model.frozen_answers(*none), model.frozen_answers())
    assert not torch.equal(model.frozen_answers(*half), model.frozen_answers(*whole))


@pytest.mark.gpu
def test_on_a_gpu_an_adapter_as_loaded_on_the_cpu_is_attached_and_leaves_no_trace(subject, trace, kind):
    model = subject("clip", "float32", "cuda")
    parts = model.parts(kind)
    wanted = model.frozen_answers(*parts)
    here = [copy.deepcopy(part).cpu() for part in parts]
    torch.testing.assert_close(model.frozen_answers(*here), wanted, rtol=0, atol=1e-5)
    with attached(model.module, *here), attached(model.module, *model.parts(kind, seed=1)):
        assert not torch.equal(model.frozen_answers(), wanted)
    assert all(part.values.device.type == "cpu" for part in here) and trace(model.module) == model.born


@pytest.mark.gpu
def test_on_a_gpu_scales_are_exact(subject, kind):
    model = subject("clip", "float32", "cuda")
    none = model.parts(kind)
    for part in none:
        part.rescale(0.0)
    assert equal_bits(model.frozen_answers(*none), model.frozen_answers())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_fresh_adapters_change_nothing_and_leaving_restores(subject, trace, kind, dtype):
    model = subject("clip", dtype, "cuda")
    before = model.frozen_answers()
    assert equal_bits(model.frozen_answers(*model.fresh(kind)), before)
    assert not torch.equal(model.frozen_answers(*model.parts(kind)), before)
    with pytest.raises(KeyboardInterrupt), attached(model.module, *model.parts(kind), *model.parts(kind, seed=1)):
        raise KeyboardInterrupt
    assert trace(model.module) == model.born and equal_bits(model.frozen_answers(), before)
