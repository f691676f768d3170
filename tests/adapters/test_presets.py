# Every preset follows a reference that is written here on dense weights, from the papers and the authors' code.
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.moves import Moves
from kusabi.adapters.moving_support import MovingSupport, most_changed
from kusabi.adapters.presets import LT_SFT, PRESETS, SO, SO_BOUNDED, SO_PAPER, SPIEL
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.training.optimizer import FlatAdamW

COUNTS, RATE, SEED = {"0.weight": 14, "2.weight": 10, "4.weight": 6}, 0.02, 3
FIRST, SECOND = 0.9, 0.999


def build_net():
    net = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return net.requires_grad_(False)


def loss_at(step, answers):
    inputs = torch.randn(4, 7, generator=torch.Generator().manual_seed(step))
    return (answers(inputs) - inputs[:, :3].sin()).square().sum()


def dense_gradients_at(net, weights, step):
    leaves = {name: weight.clone().requires_grad_(True) for name, weight in weights.items()}
    loss = loss_at(step, lambda inputs: functional_call(net, leaves, (inputs,)))
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {name: gradient.flatten() for name, gradient in zip(leaves, gradients, strict=True)}


def first_supports(net):
    return {name: random_support(net.get_parameter(name).numel(), k, SEED, name) for name, k in COUNTS.items()}


def train(net, supports, moves, steps):
    delta = SparseDelta(supports)
    optimizer = FlatAdamW(delta.values)
    moving = MovingSupport(delta, optimizer, moves, steps=steps, seed=SEED)
    with working_copy(net, delta, watch=moving.watch) as copy:
        for step in range(1, steps + 1):
            loss_at(step, net).backward()
            moving.narrow()
            optimizer.step(RATE)
            moving.advance(copy)
            weights = {name: net.get_parameter(name).detach().clone() for name in COUNTS}
            yield step, delta, optimizer, weights


def merged(frozen, deltas):
    """Dense weights of a reference: frozen bits where it has no entry, frozen plus delta where it has one."""
    weights = {}
    for name, weight in frozen.items():
        flat = weight.flatten().clone()
        for position, value in deltas[name].items():
            flat[position] += torch.tensor(value, dtype=torch.float32)
        weights[name] = flat.view_as(weight)
    return weights


def adam(state, position, gradient, count):
    """One entry's update from (mean, square), both stored again; ``count`` corrects the bias."""
    mean, square = state.get(position, (0.0, 0.0))
    mean, square = FIRST * mean + (1 - FIRST) * gradient, SECOND * square + (1 - SECOND) * gradient**2
    state[position] = mean, square
    return RATE * mean / (1 - FIRST**count) / (math.sqrt(square / (1 - SECOND**count)) + 1e-8)


def compare(net, frozen, delta, optimizer, weights, deltas, moments, ages):
    for name, indices, values in delta.parts():
        own = delta.slices[name]
        wanted = sorted(deltas[name])
        assert indices.tolist() == wanted
        rows = {"mean": [moments[name].get(i, (0, 0))[0] for i in wanted]}
        rows["square"] = [moments[name].get(i, (0, 0))[1] for i in wanted]
        torch.testing.assert_close(values, torch.tensor([deltas[name][i] for i in wanted]), rtol=1e-3, atol=2e-6)
        for part, expected in rows.items():
            found = getattr(optimizer, part)[own]
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-5)
        assert optimizer.age[own].tolist() == [ages[name][i] for i in wanted]
        outside = torch.ones(frozen[name].numel(), dtype=torch.bool)
        outside[wanted] = False
        found, original = weights[name].flatten()[outside], frozen[name].flatten()[outside]
        assert torch.equal(found.view(torch.int32), original.view(torch.int32)), "bits outside the support"


def test_spiel_follows_the_authors_code_step_by_step():
    steps = 66
    net = build_net()
    frozen = {name: net.get_parameter(name).detach().clone() for name in COUNTS}
    starts = first_supports(net)
    deltas = {name: dict.fromkeys(support.tolist(), 0.0) for name, support in starts.items()}
    moments = {name: {} for name in COUNTS}
    counters = {name: dict.fromkeys(deltas[name], 1) for name in COUNTS}  # SftAdamW's age starts at one
    scores, selecting, replaced = {}, True, []
    for step, delta, optimizer, weights in train(build_net(), starts, SPIEL.moves, steps):
        gradients = dense_gradients_at(net, merged(frozen, deltas), step)
        for name, gradient in gradients.items():
            if selecting and name in scores:
                for i in scores[name]:
                    total, squares, samples = scores[name][i]
                    g = gradient[i].item()
                    scores[name][i] = total + g, squares + g * g, samples + 1
            elif selecting:
                order = sorted(range(len(gradient)), key=lambda i: (-abs(gradient[i].item()), i))
                chosen = order[: len(deltas[name])]
                scores[name] = {i: (gradient[i].item(), gradient[i].item() ** 2, 1) for i in chosen}
            for i in deltas[name]:
                deltas[name][i] -= adam(moments[name], i, gradient[i].item(), counters[name][i])
                counters[name][i] += 1
        if (step + 1) % 20 == 0:
            selecting, scores = True, {}
        if step % 20 == 5:
            share = 1.0 if step == 5 else 0.2 * (1 - step / steps)
            for name, own in deltas.items():
                leaving = sorted(own, key=lambda i: (abs(own[i]), i))[: int(len(own) * share)]
                remaining = own.keys() - set(leaving)
                valid = sorted(scores[name].keys() - remaining, key=lambda i: (-abs(scores[name][i][0]), i))
                incoming = [i for i in valid[: len(leaving)] if i not in leaving]
                leaving = [i for i in leaving if i not in valid[: int(len(own) * share)]][: len(incoming)]
                for gone in leaving:
                    del own[gone], moments[name][gone], counters[name][gone]
                for come in incoming:
                    total, squares, samples = scores[name][come]
                    own[come], counters[name][come] = 0.0, samples
                    moments[name][come] = total / samples, squares / samples
                replaced.append(len(incoming))
            selecting, scores = False, {}
        ages = {name: {i: counter - 1 for i, counter in counters[name].items()} for name in COUNTS}
        compare(net, frozen, delta, optimizer, weights, deltas, moments, ages)
    assert 0 < sum(replaced[:3]) < sum(COUNTS.values()), "some were wanted back, with what they had learned"
    assert sum(replaced[3:]) > 0 and len(replaced) == 12


@pytest.mark.parametrize(("preset", "period", "steps"), [(SO, 5, 18), (SO_PAPER, 10, 23)])
def test_so_follows_the_authors_code_step_by_step_and_its_delta_grows(preset, period, steps):
    net = build_net()
    frozen = {name: net.get_parameter(name).detach().clone() for name in COUNTS}
    starts = first_supports(net)
    deltas, moments = {name: {} for name in COUNTS}, {name: {} for name in COUNTS}
    drawn = {}
    for step, delta, optimizer, weights in train(build_net(), starts, preset.moves, steps):
        if step == 1:
            drawn = {name: support.tolist() for name, support in starts.items()}
        elif (step - 1) % period == 0:
            for name, k in COUNTS.items():
                drawn[name] = random_support(frozen[name].numel(), k, SEED, f"{name}/{step - 1}").tolist()
        for name, gradient in dense_gradients_at(net, merged(frozen, deltas), step).items():
            for i in drawn[name]:
                deltas[name].setdefault(i, 0.0)
            for i in set(drawn[name]) | moments[name].keys():
                g = gradient[i].item() if i in drawn[name] else 0.0
                deltas[name][i] -= adam(moments[name], i, g, step)
            order = sorted(moments[name], key=lambda i: (-abs(moments[name][i][0]), i))
            moments[name] = {i: moments[name][i] for i in order[: COUNTS[name]]}
        # What the next update draws is laid in already, with value zero.
        coming = {name: dict(own) for name, own in deltas.items()}
        if step % period == 0 and step < steps:
            for name, k in COUNTS.items():
                for i in random_support(frozen[name].numel(), k, SEED, f"{name}/{step}").tolist():
                    coming[name].setdefault(i, 0.0)
        ages = {name: dict.fromkeys(own, step) for name, own in coming.items()}
        compare(net, frozen, delta, optimizer, weights, coming, moments, ages)
        assert all(len(moments[name]) == k for name, k in COUNTS.items())
    assert len(delta) > 1.5 * sum(COUNTS.values())


def test_so_bounded_trades_the_half_with_the_smaller_momentum_for_random_entries_and_restores_it():
    steps = 45
    net = build_net()
    frozen = {name: net.get_parameter(name).detach().clone() for name in COUNTS}
    starts = first_supports(net)
    deltas = {name: dict.fromkeys(support.tolist(), 0.0) for name, support in starts.items()}
    moments = {name: {} for name in COUNTS}
    ages = {name: dict.fromkeys(own, 0) for name, own in deltas.items()}
    traded = []
    for step, delta, optimizer, weights in train(build_net(), starts, SO_BOUNDED.moves, steps):
        for name, gradient in dense_gradients_at(net, merged(frozen, deltas), step).items():
            for i in deltas[name]:
                ages[name][i] += 1
                deltas[name][i] -= adam(moments[name], i, gradient[i].item(), ages[name][i])
        for name, own in deltas.items() if step % 10 == 0 else ():
            count = int(len(own) * 0.5 * (1 - step / steps))
            free = [i for i in range(frozen[name].numel()) if i not in own]
            for gone in sorted(own, key=lambda i: (abs(moments[name][i][0]), i))[:count]:
                del own[gone], moments[name][gone], ages[name][gone]
            for rank in random_support(len(free), count, SEED, f"{name}/{step}").tolist():
                own[free[rank]], moments[name][free[rank]], ages[name][free[rank]] = 0.0, (0.0, 0.0), 0
            traded.append(count)
        compare(net, frozen, delta, optimizer, weights, deltas, moments, ages)
    assert len(delta) == sum(COUNTS.values()) and traded[:3] == [5, 3, 2] and traded[-1] == 0


def naive_support(preset, net):
    """Trained positions of a static preset, by sorting Python numbers."""
    weights = {name: net.get_parameter(name).detach() for name in COUNTS}
    gradients = dense_gradients_at(net, weights, 0)
    chosen = {}
    for name, k in COUNTS.items():
        weight, gradient = weights[name].flatten(), gradients[name]
        if preset.rule == "random":
            chosen[name] = random_support(len(weight), k, SEED, name)
            continue
        scores = {"magnitude": weight, "gradient": gradient, "snip": weight * gradient}[preset.rule].abs().tolist()
        rows, columns = weights[name].shape
        if preset.granularity == "output":
            lines = [range(row * columns, (row + 1) * columns) for row in range(rows)]
            picked = [i for line in lines for i in sorted(line, key=lambda i: (-scores[i], i))[: max(1, k // rows)]]
        else:
            picked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
        chosen[name] = torch.tensor(sorted(picked))
    return chosen


def masked_adamw(net, masks, steps):
    """Dense weights under torch's AdamW, gradients masked."""
    frozen = {name: net.get_parameter(name).detach() for name in COUNTS}
    own = {name: nn.Parameter(weight.clone()) for name, weight in frozen.items()}
    optimizer = torch.optim.AdamW(own.values(), lr=RATE, weight_decay=0.0)
    for step in range(1, steps + 1):
        gradients = dense_gradients_at(net, {name: weight.detach() for name, weight in own.items()}, step)
        for name, weight in own.items():
            weight.grad = (gradients[name] * masks[name]).view_as(weight)
        optimizer.step()
    return {name: weight.detach() for name, weight in own.items()}


@pytest.mark.parametrize(
    "name", ["shira-random", "shira-magnitude", "shira-gradient", "shira-snip", "super-tuning", "saft", "gps"]
)
def test_static_presets_never_move_and_train_like_masked_dense_weights(name):
    net, preset = build_net(), PRESETS[name]
    supports = naive_support(preset, net)
    masks = {target: torch.zeros(net.get_parameter(target).numel()) for target in COUNTS}
    for target, support in supports.items():
        masks[target][support.long()] = 1.0
    wanted = masked_adamw(build_net(), masks, 12)
    _, delta, optimizer, weights = list(train(net, supports, preset.moves, 12))[-1]
    assert all(torch.equal(indices.long(), supports[target].long()) for target, indices, _ in delta.parts())
    torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=1e-5)
    assert optimizer.age.unique().tolist() == [12]


def test_lt_sft_keeps_what_a_dense_training_moved_furthest_over_all_weights_and_starts_afresh():
    net, budget, steps = build_net(), 25, 10
    everything = {name: torch.ones(net.get_parameter(name).numel()) for name in COUNTS}
    dense = masked_adamw(build_net(), everything, steps)
    places = [(name, i) for name in COUNTS for i in range(len(everything[name]))]
    distance = {name: (dense[name] - net.get_parameter(name)).abs().flatten().tolist() for name in COUNTS}
    kept = sorted(places, key=lambda place: -distance[place[0]][place[1]])[:budget]
    assert len({sum(name == own for own, _ in kept) for name in COUNTS}) > 1, "not the same number everywhere"
    whole = {name: torch.arange(len(mask)) for name, mask in everything.items()}
    delta = list(train(net, whole, Moves(), steps))[-1][1]
    chosen = most_changed(delta, budget)
    assert {(name, i) for name, support in chosen.items() for i in support.tolist()} == set(kept)
    masks = {name: torch.zeros_like(mask).index_fill(0, chosen[name].long(), 1.0) for name, mask in everything.items()}
    weights = list(train(net, chosen, LT_SFT.moves, steps))[-1][3]
    torch.testing.assert_close(weights, masked_adamw(build_net(), masks, steps), rtol=1e-4, atol=1e-5)


def test_equal_changes_never_exceed_the_budget_and_a_target_may_go_empty():
    delta = SparseDelta({"a": torch.arange(3), "b": torch.arange(4)})
    delta.values.data = torch.tensor([0.0, -2.0, 2.0, 2.0, -2.0, 0.0, 1.0])
    assert {name: chosen.tolist() for name, chosen in most_changed(delta, 3).items()} == {"a": [1, 2], "b": [0]}
    assert {name: chosen.tolist() for name, chosen in most_changed(delta, 1).items()} == {"a": [1], "b": []}
    assert sum(map(len, most_changed(delta, 99).values())) == 7
