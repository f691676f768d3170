import copy
import sys
import threading
from contextlib import ExitStack, suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kusabi.adapters import attach, fold
from kusabi.adapters.attach import attached, merge
from kusabi.adapters.ledger import ledger_of
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError

FUSED, OUT, UP = "vision.3.self_attn.in_proj_weight", "vision.3.self_attn.out_proj.weight", "vision.2.linear1.weight"
PICTURES = torch.linspace(-1, 1, 48).sin().view(2, 3, 8)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def delta_on(*names, seed=0, k=24, still=4):
    random = torch.Generator().manual_seed(seed)
    delta = SparseDelta({name: torch.randperm(64, generator=random)[:k].sort().values for name in names})
    delta.values.data = torch.randn(len(delta), generator=random) * 0.1
    delta.values.data[::still] = 0.0
    return delta


def expected(frozen, *deltas):
    # fp32 sums in the order of attaching; untouched bits where the sum is zero.
    state = {name: tensor.clone() for name, tensor in frozen.items()}
    sums = {name: torch.zeros(tensor.numel()) for name, tensor in frozen.items()}
    for delta in deltas:
        for name, indices, values in delta.parts():
            sums[name][indices.long()] += values
    for name, total in sums.items():
        at = total.nonzero().flatten()
        state[name].view(-1)[at] = (frozen[name].reshape(-1)[at].float() + total[at]).to(frozen[name].dtype)
    return state


def frozen_state(module):
    return {name: module.get_parameter(name).detach().clone() for name in (FUSED, OUT, UP)}


def same_bits(module, state):
    now = frozen_state(module)
    return all(torch.equal(now[name].view(torch.uint8), state[name].view(torch.uint8)) for name in state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fresh_adapter_changes_no_output_and_no_weight_bitwise(towers, digest, dtype):
    module, pictures = towers(dtype=dtype), PICTURES.to(dtype)
    before, outputs = digest(module), module["vision"](pictures)
    with attached(module, SparseDelta({FUSED: torch.arange(64), UP: torch.arange(128)})):
        assert digest(module) == before
        assert torch.equal(module["vision"](pictures).view(torch.uint8), outputs.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("raised", [None, RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_leaving_restores_every_bit_however_it_is_left(towers, digest, dtype, raised):
    module, delta = towers(dtype=dtype), delta_on(FUSED, UP)
    before, frozen = digest(module), frozen_state(module)
    try:
        with attached(module, delta) as joined:
            assert joined is module and digest(module) != before
            assert same_bits(module, expected(frozen, delta))
            if raised:
                raise raised
    except BaseException as error:
        assert type(error) is raised
    assert digest(module) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_thousand_cycles_leave_no_trace(towers, digest, seed, dtype):
    module = towers(seed, dtype)
    before, deltas = digest(module), [delta_on(FUSED, seed=seed), delta_on(FUSED, UP, seed=seed + 1)]
    for cycle in range(1000):
        try:
            with attached(module, deltas[cycle % 2]):
                if cycle % 100 == 7:
                    raise ArithmeticError
        except ArithmeticError:
            assert digest(module) == before
    assert digest(module) == before


@settings(max_examples=15, deadline=None)
@given(
    toggles=st.lists(st.integers(0, 3), max_size=16), dtype=st.sampled_from(DTYPES), still=st.sampled_from([1, 2, 100])
)
def test_adapters_come_and_go_in_any_order(towers, digest, toggles, dtype, still):
    module = towers(dtype=dtype)
    before, frozen = digest(module), frozen_state(module)
    deltas = [delta_on(*names, seed=i, still=still) for i, names in enumerate([[FUSED], [FUSED, UP], [UP, OUT], [OUT]])]
    present: dict[int, ExitStack] = {}
    for which in [*toggles, *(i for i in range(4) if toggles.count(i) % 2)]:
        if which in present:
            present.pop(which).close()
        else:
            present[which] = ExitStack()
            present[which].enter_context(attached(module, deltas[which]))
        assert same_bits(module, expected(frozen, *(deltas[i] for i in present)))
    assert not present and digest(module) == before


def test_an_exception_in_the_inner_context_leaves_the_outer_adapter_on(towers, digest):
    module, outer, inner = towers(dtype=torch.bfloat16), delta_on(FUSED), delta_on(FUSED, UP, seed=1)
    before, frozen = digest(module), frozen_state(module)
    with attached(module, outer):
        with pytest.raises(ZeroDivisionError), attached(module, inner):
            raise ZeroDivisionError
        assert same_bits(module, expected(frozen, outer))
    assert digest(module) == before


def test_a_delta_that_fits_in_part_writes_nothing(towers, digest):
    module, good = towers(), delta_on(FUSED)
    before = digest(module)
    partly = SparseDelta({FUSED: torch.tensor([0]), UP: torch.tensor([3, 128]), "vision.9.weight": torch.tensor([0])})
    partly.values.data.fill_(1.0)
    with pytest.raises(AdapterError) as refusal, attached(module, good, partly):
        pytest.fail("entered")
    assert f"{UP}: index 128 is outside its 128 entries" in str(refusal.value)
    assert "vision.9.weight: the model has no such weight" in str(refusal.value)
    assert digest(module) == before
    with pytest.raises(AdapterError):
        merge(module, partly)
    assert digest(module) == before


WAYS = pytest.mark.parametrize("way", [attach, fold], ids=["one by one", "in one pass"])


@pytest.fixture
def joining(monkeypatch):
    # The short way serves a sparse delta alone; without it, all goes the way of those that share weights.
    def through(way):
        if way is attach:
            monkeypatch.setattr(attach, "suits", lambda weights: False)
        return way

    return through


@WAYS
@pytest.mark.parametrize(("step", "at"), [("_read", 3), ("_write", 1), ("_write", 2)])
def test_all_originals_are_gathered_before_the_first_write_and_joining_may_stop_anywhere(
    towers, digest, monkeypatch, joining, way, step, at
):
    way = joining(way)
    module, real, states = towers(), getattr(way, step), []

    def stopping(*arguments):
        states.append(digest(module))
        if len(states) == at:
            raise KeyboardInterrupt
        return real(*arguments)

    before = digest(module)
    monkeypatch.setattr(way, step, stopping)
    with pytest.raises(KeyboardInterrupt), attached(module, delta_on(FUSED, OUT, UP)):
        pytest.fail("entered")
    assert digest(module) == before
    assert step == "_write" or states == [before] * 3


@WAYS
@pytest.mark.parametrize("at", [1, 2, 3])
def test_ctrl_c_while_leaving_still_restores_everything(towers, digest, monkeypatch, joining, way, at):
    module, real, calls = towers(), joining(way)._write, []
    before = digest(module)

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.raises(KeyboardInterrupt), attached(module, delta_on(FUSED, OUT, UP)):
        monkeypatch.setattr(way, "_write", stopping)
    assert digest(module) == before
    with attached(module, delta_on(FUSED)):
        pass
    assert digest(module) == before


@pytest.fixture
def at_once():
    # Runs a step in two threads that take turns as often as they can.
    def run(step):
        failed, start = [], threading.Barrier(2)

        def work(number):
            start.wait()
            try:
                step(number)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not failed and not any(thread.is_alive() for thread in threads)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield run
    sys.setswitchinterval(before)


@WAYS
@pytest.mark.parametrize("other", ["0.weight", "1.weight"])
def test_two_threads_that_attach_at_the_same_time_leave_no_trace(digest, joining, at_once, way, other):
    joining(way)
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
    before, deltas = digest(module), [delta_on("0.weight"), delta_on(other, seed=1)]

    def swap(number):
        for _ in range(300):
            with attached(module, deltas[number]):
                pass

    at_once(swap)
    assert digest(module) == before
    assert not ledger_of(module).attached and not ledger_of(module).pages


def test_an_adapter_that_two_threads_want_at_once_stays_with_the_one_that_has_it(digest, at_once):
    module = nn.Linear(8, 8).requires_grad_(False)
    before, delta = digest(module), delta_on("weight")

    def swap(_):
        had = 0
        while had < 150:
            with suppress(AdapterError), attached(module, delta):
                for _ in range(20):
                    assert ledger_of(module).attached == [delta] and digest(module) != before
                had += 1

    at_once(swap)
    assert digest(module) == before


def test_the_same_adapter_twice_is_refused_and_a_copy_adds_up(towers, digest):
    module, delta = towers(), delta_on(FUSED)
    before, frozen, twin = digest(module), frozen_state(module), copy.deepcopy(delta)
    with attached(module, delta):
        for others in ([delta], [twin, delta]):
            with pytest.raises(AdapterError, match="attached already"), attached(module, *others):
                pytest.fail("entered")
            assert same_bits(module, expected(frozen, delta))
        with attached(module, twin):
            assert same_bits(module, expected(frozen, delta, twin))
    assert digest(module) == before
    with pytest.raises(AdapterError, match="attached already"), attached(module, delta, delta):
        pytest.fail("entered")
    assert digest(module) == before


def test_after_leaving_the_ledger_forgets_the_originals(towers):
    module, delta = towers(), delta_on(FUSED)
    with attached(module, delta):
        pass
    module.get_parameter(FUSED).data.fill_(2.0)
    with attached(module, delta):
        pass
    assert bool((module.get_parameter(FUSED) == 2.0).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_merging_equals_attaching_bitwise(towers, digest, dtype):
    module, delta = towers(dtype=dtype), delta_on(FUSED, UP)
    merged = copy.deepcopy(module)
    merge(merged, delta)
    with attached(module, delta):
        assert digest(module) == digest(merged)
        with pytest.raises(AdapterError, match="leave all attached adapters"):
            merge(module, delta_on(OUT))
        assert digest(module) == digest(merged)
    assert digest(module) != digest(merged)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_that_is_not_contiguous_is_folded_by_its_logical_positions(digest, dtype):
    linear = nn.Linear(8, 8, bias=False, dtype=dtype)
    linear.weight.data = linear.weight.data.t()
    before, frozen, delta = digest(linear), linear.weight.detach().clone(), delta_on("weight")
    dense = torch.zeros(64).index_copy_(0, delta.indices.long(), delta.values.data).view(8, 8)
    wanted = (frozen.float() + dense).to(dtype)
    with attached(linear, delta):
        assert not linear.weight.is_contiguous() and torch.equal(linear.weight, wanted)
        with attached(linear, delta_on("weight", seed=1)):
            assert not torch.equal(linear.weight, wanted)
        assert torch.equal(linear.weight, wanted)
    assert digest(linear) == before
    merge(linear, delta)
    assert torch.equal(linear.weight, wanted)


@pytest.mark.parametrize("with_grad", [True, False])
def test_fused_attention_weights_act_in_the_forward(towers, with_grad):
    module, delta, pictures = towers(), delta_on(FUSED, OUT), PICTURES
    dense = copy.deepcopy(module)
    dense.load_state_dict(expected(frozen_state(module), delta), strict=False)
    with torch.set_grad_enabled(with_grad):
        plain, wanted = module["vision"](pictures), dense["vision"](pictures)
        with attached(module, delta):
            assert torch.equal(module["vision"](pictures), wanted)
    assert not torch.allclose(plain, wanted)


def test_a_tied_weight_is_written_once_and_seen_in_both_places(digest):
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    module[1].weight = module[0].weight
    before, frozen, delta = digest(module), module[0].weight.detach().clone(), delta_on("0.weight")
    with attached(module, delta):
        assert module[1].weight is module[0].weight
        added = torch.zeros(64).index_copy_(0, delta.indices.long(), delta.values.data).view(8, 8)
        assert torch.equal(module[1].weight, frozen + added)
    assert digest(module) == before
