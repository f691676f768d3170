import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.moves import Moves
from kusabi.adapters.moving_support import MovingSupport
from kusabi.adapters.presets import DROP_AND_GROW
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError
from kusabi.training.optimizer import FlatAdamW


class Weights(nn.Module):
    def __init__(self, *sizes, dtype=torch.float32):
        super().__init__()
        for number, size in enumerate(sizes):
            weight = torch.randn(size, generator=torch.Generator().manual_seed(number)).to(dtype)
            weight[::3] = -0.0
            self.register_parameter(f"w{number}", nn.Parameter(weight, requires_grad=False))

    def loss(self, step):
        """Its gradient is a fixed direction per step, plus a pull on the weights themselves."""
        weights = list(self.parameters())
        noise = [torch.randn(w.numel(), generator=torch.Generator().manual_seed(97 * step + i)) for i, w in
                 enumerate(weights)]  # fmt: skip
        return sum(((n.to(w.device) + 0.1 * w.float()) * w.float()).sum() for n, w in zip(noise, weights, strict=True))


def bits(tensor):
    return tensor.detach().clone().view({4: torch.int32, 2: torch.int16}[tensor.element_size()])


def start(module, counts, moves, steps=20, seed=0):
    supports = {
        f"w{i}": random_support(module.get_parameter(f"w{i}").numel(), count, 5, f"w{i}")
        for i, count in enumerate(counts)
    }
    delta = SparseDelta(supports).to(module.w0.device)
    optimizer = FlatAdamW(delta.values)
    return delta, optimizer, MovingSupport(delta, optimizer, moves, steps=steps, seed=seed)


def update(module, copy, optimizer, moving, step, rate=0.01, split=1):
    for _ in range(split):
        (module.loss(step) / split).backward()
    moving.narrow()
    optimizer.step(rate)
    return moving.advance(copy)


def run(module, delta, optimizer, moving, steps):
    moved = []
    with working_copy(module, delta, watch=moving.watch) as copy:
        for step in range(moving.step + 1, steps + 1):
            moved.append(update(module, copy, optimizer, moving, step))
    return moved


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.data())
def test_the_budget_is_never_exceeded_and_everything_outside_the_support_is_frozen_to_the_bit(data):
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    counts = [data.draw(st.integers(0, size)) for size in sizes]
    moves = Moves(
        every=data.draw(st.integers(1, 3)),
        share=data.draw(st.floats(0, 1)),
        first_share=data.draw(st.sampled_from([None, 0.0, 1.0])),
        rho=data.draw(st.floats(0, 1)),
        weakest=data.draw(st.sampled_from(["value", "momentum"])),
        window=data.draw(st.integers(1, 4)),
        seeding=data.draw(st.sampled_from(["mean", "unbiased", "zero"])),
        scope=data.draw(st.sampled_from(["target", "all"])),
    )
    module = Weights(*sizes, dtype=data.draw(st.sampled_from([torch.float32, torch.bfloat16])))
    frozen = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    delta, optimizer, moving = start(module, counts, moves, steps=7, seed=data.draw(st.integers(0, 9)))
    with working_copy(module, delta, watch=moving.watch) as copy:
        for step in range(1, 8):
            was = delta.values.data.clone(), optimizer.age.clone() + 1
            move = update(module, copy, optimizer, moving, step)
            assert len(delta) == sum(counts) and (moves.scope == "all" or delta.counts == tuple(counts))
            for name, indices, values in delta.parts():
                assert bool((indices[1:] > indices[:-1]).all())
                assert len(indices) == 0 or 0 <= int(indices[0]) <= int(indices[-1]) < len(frozen[name])
                outside = torch.ones(len(frozen[name]), dtype=torch.bool)
                outside[indices.long()] = False
                weight = module.get_parameter(name).detach()
                assert torch.equal(bits(weight[outside]), bits(frozen[name][outside].float()))
                inside = indices.long()
                assert torch.equal(weight[inside], frozen[name][inside].float() + values)
            if move:
                new = move.sources < 0
                assert 0 < move.entered == int(new.sum()) <= len(delta)
                assert not delta.values.data[new].any() and delta.values.data[~new].any() == (~new).any()
                assert torch.equal(optimizer.age[~new], move.carried(was[1])[~new])
    assert all(torch.equal(bits(module.get_parameter(name)), bits(frozen[name])) for name in frozen)


MOVES = {
    "ours": Moves(every=4, share=0.6, rho=0.5, window=3),
    "by gradient, one window after the other": Moves(every=3, phase=1, share=0.6, rho=0.0, window=9, seeding="mean"),
    "random, by momentum": Moves(every=2, share=0.5, rho=1.0, weakest="momentum", seeding="zero"),
    "over all targets": Moves(every=4, share=0.6, rho=0.3, window=2, scope="all", schedule="cosine"),
    "union": Moves(every=4, rho=1.0, union=True),
    "static": Moves(),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_training_stopped_after_any_update_goes_on_bitwise(name):
    whole = start(Weights(30, 20), (6, 5), MOVES[name])
    moved = run(Weights(30, 20), *whole, 10)
    assert any(moved) == (name != "static")
    for stop in range(1, 10):
        first = start(Weights(30, 20), (6, 5), MOVES[name])
        run(Weights(30, 20), *first, stop)
        saved = load(save({**first[2].tensors(), **{f"o.{key}": t for key, t in first[1].tensors().items()}}))
        second = start(Weights(30, 20), (1, 0), MOVES[name])  # any delta of the same targets
        second[2].restore(saved)
        second[1].restore({key: saved[f"o.{key}"] for key in first[1].tensors()})
        run(Weights(30, 20), *second, 10)
        for part in (1, 2):
            for key, tensor in whole[part].tensors().items():
                assert torch.equal(second[part].tensors()[key], tensor), (stop, key)


def test_moves_are_functions_of_seed_target_name_and_update():
    def entered(seed):
        delta, optimizer, moving = start(Weights(1000, 1000), (8, 8), Moves(every=1, share=0.5, rho=1.0), seed=seed)
        before = {name: set(indices.tolist()) for name, indices, _ in delta.parts()}
        run(Weights(1000, 1000), delta, optimizer, moving, 1)
        return {name: sorted(set(indices.tolist()) - before[name]) for name, indices, _ in delta.parts()}

    torch.manual_seed(1)
    assert entered(0) == {"w0": [419, 447, 606], "w1": [384, 504, 897]}, "as it always was"
    torch.manual_seed(2)
    assert entered(0) == entered(0) != entered(1)


def test_random_positions_are_uniform_over_what_is_free():
    counts = torch.zeros(12)
    for seed in range(300):
        module = Weights(12)
        delta, optimizer, moving = start(module, (4,), Moves(every=1, share=0.8, rho=1.0), seed=seed)
        taken = set(delta.indices.tolist())
        run(module, delta, optimizer, moving, 1)
        counts[[i for i in delta.indices.tolist() if i not in taken]] += 1
    free = counts[[i for i in range(12) if i not in taken]]
    assert free.sum() == counts.sum() == 900 and len(free) == 8
    assert float(((free - 112.5) ** 2 / 112.5).sum()) < 24.4  # chi-squared, 7 degrees, p = 0.001


def moved_once(gradients, values, moves, means=(0.0, 0.0, 0.0, 0.0), size=12):
    """One move over positions 2, 4, 6, 8 of one weight, whose gradient is given."""
    module = nn.Module()
    module.w = nn.Parameter(torch.ones(size), requires_grad=False)
    delta = SparseDelta({"w": torch.tensor([2, 4, 6, 8])})
    delta.values.data = torch.tensor(values)
    optimizer = FlatAdamW(delta.values)
    optimizer.mean, optimizer.age = torch.tensor(means), torch.full((4,), 7, dtype=torch.int32)
    moving = MovingSupport(delta, optimizer, moves, steps=10, seed=0)
    with working_copy(module, delta, watch=moving.watch) as copy:
        (module.w * torch.tensor(gradients)).sum().backward()
        move = moving.advance(copy)
    return delta, optimizer, move


HALF = Moves(every=1, share=0.56, rho=0.0)  # of 4, at update 1 of 10: 2


def test_the_smallest_values_leave_and_the_largest_gradients_enter_ties_to_the_lower_index():
    gradients = [0.0, 1.0, 9.0, 3.0, 0.0, 3.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    delta, optimizer, move = moved_once(gradients, [0.5, -0.1, 0.1, 0.1], HALF)
    assert delta.indices.tolist() == [2, 3, 5, 8] and delta.values.tolist() == [0.5, 0.0, 0.0, pytest.approx(0.1)]
    assert move.sources.tolist() == [0, -1, -1, 3] and optimizer.age.tolist() == [7, 1, 1, 7]
    by_momentum = Moves(every=1, share=0.56, rho=0.0, weakest="momentum")
    gradients[2] = 0.0
    delta, _, _ = moved_once(gradients, [0.5, -0.1, 0.1, 0.1], by_momentum, (0.0, 2.0, -3.0, 0.0))
    assert delta.indices.tolist() == [3, 4, 5, 6]


def test_a_weak_entry_that_its_gradient_wants_stays_as_it_is():
    gradients = [0.0, 1.0, 0.0, 3.0, -5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    delta, optimizer, move = moved_once(gradients, [0.5, -0.1, 0.2, 0.9], HALF)
    assert delta.indices.tolist() == [2, 3, 4, 8] and move.entered == 1
    assert delta.values.tolist() == pytest.approx([0.5, 0.0, -0.1, 0.9]) and optimizer.age.tolist() == [7, 1, 7, 7]


@pytest.mark.parametrize(("rho", "random"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_rho_is_the_share_of_random_entries(rho, random):
    gradients = [0.0] * 40
    gradients[30:34] = [4.0, 3.0, 2.0, 1.0]
    moves = Moves(every=1, first_share=1.0, rho=rho)
    delta, _, move = moved_once(gradients, [1.0, 2.0, 3.0, 4.0], moves, size=40)
    assert move.entered == 4
    assert [i for i in delta.indices.tolist() if 30 <= i < 34][: 4 - random] == list(range(30, 34 - random))
    assert not {2, 4, 6, 8} & set(delta.indices.tolist())


def test_where_nothing_is_free_nothing_moves():
    for rho in (0.0, 0.5, 1.0):
        delta, optimizer, moving = start(Weights(9, 5), (9, 5), Moves(every=1, share=1.0, rho=rho))
        assert run(Weights(9, 5), delta, optimizer, moving, 3) == [None] * 3
        assert optimizer.age.tolist() == [3] * 14


def test_over_all_targets_entries_go_where_the_gradients_are():
    module = nn.Module()
    module.quiet, module.loud = (nn.Parameter(torch.ones(20), requires_grad=False) for _ in range(2))
    delta = SparseDelta({"quiet": torch.arange(6), "loud": torch.arange(2)})
    optimizer = FlatAdamW(delta.values)
    moving = MovingSupport(delta, optimizer, Moves(every=1, share=0.9, rho=0.0, scope="all"), steps=100, seed=0)
    with working_copy(module, delta, watch=moving.watch) as copy:
        for _ in range(2):
            (module.loud * torch.linspace(1, 2, 20)).sum().backward()
            optimizer.step(0.01)
            moving.advance(copy)
            assert len(delta) == 8
        assert torch.equal(copy.weights["quiet"], torch.ones(20))
    assert delta.counts == (0, 8) and delta.indices.tolist() == [1, *range(13, 20)], "the strongest one stayed"


def test_micro_batches_move_the_support_as_the_whole_batch_does():
    states = []
    for split in (1, 4):
        module = Weights(40)
        delta, optimizer, moving = start(module, (8,), Moves(every=2, share=0.7, rho=0.4, window=2))
        with working_copy(module, delta, watch=moving.watch) as copy:
            moved = [update(module, copy, optimizer, moving, step, split=split) for step in range(1, 8)]
        assert sum(move is not None for move in moved) >= 2
        states.append((delta.indices.tolist(), optimizer.age.tolist(), delta.values.data))
    assert states[0][:2] == states[1][:2] and torch.allclose(states[0][2], states[1][2], atol=1e-6)


def test_tied_weights_are_one_target_with_one_sample_an_update_of_the_sum_of_both_gradients():
    first, second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, nn.Tanh(), second).requires_grad_(False)
    inputs = torch.linspace(-1, 1, 15).view(3, 5)
    leaf = first.weight.detach().clone().requires_grad_(True)
    (torch.tanh(inputs @ leaf.T) @ leaf.T).sum().backward()
    free = [i for i in range(25) if i not in (0, 7)]
    wanted = max(free, key=lambda i: leaf.grad.flatten()[i].abs().item())
    delta = SparseDelta({"0.weight": torch.tensor([0, 7])})
    optimizer = FlatAdamW(delta.values)
    moves = Moves(every=2, phase=1, first_share=0.5, rho=0.0, seeding="mean")
    moving = MovingSupport(delta, optimizer, moves, steps=9, seed=0)
    with working_copy(module, delta, watch=moving.watch) as copy:
        module(inputs).sum().backward()
        moving.advance(copy)
        row = delta.indices.tolist().index(wanted)
        torch.testing.assert_close(optimizer.mean[row], leaf.grad.flatten()[wanted])
        assert optimizer.age[row] == 0, "one sample: the update to come is the first of its age"
        assert module[0].weight is module[2].weight


@pytest.mark.parametrize("moves", [DROP_AND_GROW.moves, MOVES["union"]], ids=["ours", "union"])
def test_no_dense_gradient_is_kept_between_updates(moves):
    module = Weights(4000)
    delta, optimizer, moving = start(module, (10,), moves, steps=40)
    with working_copy(module, delta, watch=moving.watch) as copy:
        for step in range(1, 10):
            update(module, copy, optimizer, moving, step)
            assert all(tensor.untyped_storage().nbytes() < 1000 for tensor in moving.tensors().values())
            assert module.w0.grad is None
    assert moves.union or moving.tensors()["growth.samples"].tolist() == [4]


def test_gradients_that_are_not_numbers_are_refused_by_name_and_the_backbone_is_back():
    module = Weights(30)
    before = bits(module.w0)
    delta, _, moving = start(module, (6,), Moves(every=1, share=0.9, rho=0.0))
    with pytest.raises(AdapterError, match=r"^w0: .* not numbers"), working_copy(module, delta, watch=moving.watch):
        (module.w0 * torch.full((30,), torch.nan)).sum().backward()
    assert torch.equal(bits(module.w0), before)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MOVES)
def test_on_a_gpu_the_budget_holds_and_leaving_restores(name):
    module = Weights(300, 200, dtype=torch.bfloat16).cuda()
    before = [bits(weight) for weight in module.parameters()]
    delta, optimizer, moving = start(module, (20, 10), MOVES[name])
    run(module, delta, optimizer, moving, 14)
    assert delta.values.is_cuda and optimizer.mean.is_cuda and (name == "union") == (len(delta) > 30)
    assert all(torch.equal(bits(weight), old) for weight, old in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("name", [name for name in MOVES if name != "static"])
def test_positions_of_other_adapters_never_enter_and_are_frozen_to_the_bit(name):
    module, moves = Weights(30, 20), MOVES[name]
    frozen = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    delta, optimizer, _ = start(module, (6, 5), moves)
    closed = {
        n: torch.tensor([i for i in range(len(frozen[n])) if i not in at and i % 5 != 4], dtype=torch.int32)
        for n, at in ((n, set(indices.tolist())) for n, indices, _ in delta.parts())
    }
    begun = {n: set(indices.tolist()) for n, indices, _ in delta.parts()}
    moving = MovingSupport(delta, optimizer, moves, steps=40, seed=0, closed=closed)
    entered = 0
    with working_copy(module, delta, watch=moving.watch) as copy:
        for step in range(1, 40):
            move = update(module, copy, optimizer, moving, step)
            entered += move.entered if move else 0
            assert len(delta) == 11 or moves.union
            for weight, indices, _ in delta.parts():
                assert not set(indices.tolist()) & set(closed[weight].tolist())
                at = closed[weight].long()
                assert torch.equal(bits(module.get_parameter(weight).detach()[at]), bits(frozen[weight][at]))
    assert entered and any(set(indices.tolist()) - begun[n] for n, indices, _ in delta.parts()), "it moved all the same"


def test_a_support_that_nothing_is_left_beside_stays_where_it_is():
    for moves in (Moves(every=1, share=0.9, rho=0.5), Moves(every=1, rho=1.0, union=True)):
        module = Weights(12)
        delta, optimizer, _ = start(module, (4,), moves)
        own = delta.indices.tolist()
        closed = {"w0": torch.tensor([i for i in range(12) if i not in own])}
        run(module, delta, optimizer, MovingSupport(delta, optimizer, moves, steps=9, seed=0, closed=closed), 6)
        assert delta.indices.tolist() == own
