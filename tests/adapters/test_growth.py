import pytest
import torch
from torch import nn

from kusabi.adapters.growth import Growth
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.moves import Moves
from kusabi.adapters.moving_support import MovingSupport
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.training.optimizer import FlatAdamW

BETAS = (0.9, 0.999)
NOTHING = torch.empty(0, dtype=torch.int64)


def grown(gradients, count=3, **moves):
    growth = Growth(("w",))
    for micro_batches in gradients:
        for dense in micro_batches:
            growth.watch("w", torch.tensor(dense), count)
        growth.count()
    return growth, growth.best({"w": 100}, NOTHING, 2, Moves(**moves), BETAS)


def test_the_first_backward_names_the_candidates_and_all_updates_are_averaged():
    gradients = [[[5.0, -4.0, 0.0, 1.0]], [[-5.0, -2.0, 99.0, 1.0]], [[0.0, -3.0, 99.0, 1.0]]]
    growth, best = grown(gradients, seeding="mean")
    assert growth.tensors(NOTHING.device)["at"].tolist() == [0, 1, 3]
    assert best.keys.tolist() == [101, 103], "|mean| of 3 and 1; a mean of 0 is no reason to enter"
    assert best.mean.tolist() == [-3.0, 1.0]
    assert best.square.tolist() == pytest.approx([(16 + 4 + 9) / 3, 1.0])
    assert best.age.tolist() == [2, 2]


def test_closed_positions_make_room_for_the_next_best_candidates_and_never_are_one():
    growth = Growth(("w",), {"w": torch.tensor([0, 2], dtype=torch.int32)})
    growth.watch("w", torch.tensor([9.0, 1.0, -8.0, 2.0, 0.0]), 2)
    assert growth.tensors(NOTHING.device)["at"].tolist() == [1, 3]
    growth.clear()
    growth.watch("w", torch.tensor([9.0, 1.0, -8.0, 2.0, 0.0]), 5)
    assert growth.tensors(NOTHING.device)["at"].tolist() == [1, 3, 4]


def test_micro_batches_of_one_update_add_up_to_one_sample_after_the_first_has_named_the_candidates():
    _, best = grown([[[1.0, 2.0, 3.0, 0.0], [1.0, 1.0, -3.0, 9.0]]], seeding="mean")
    assert best.keys.tolist() == [100, 101] and best.mean.tolist() == [2.0, 3.0] and best.square.tolist() == [4.0, 9.0]


def test_entries_seeded_without_bias_are_those_that_would_have_met_the_mean_from_the_start():
    gradients = [[[2.0, -1.0, 0.0]]] * 4
    _, best = grown(gradients, seeding="unbiased")
    mean = square = 0.0
    for _ in range(4):
        mean, square = 0.9 * mean + 0.1 * 2.0, 0.999 * square + 0.001 * 4.0
    assert best.mean[0].item() == pytest.approx(mean) and best.square[0].item() == pytest.approx(square, rel=1e-5)
    assert best.age.tolist() == [4, 4]
    _, best = grown(gradients, seeding="zero")
    assert not best.mean.any() and not best.square.any() and not best.age.any()


def test_positions_that_are_taken_and_targets_outside_the_group_are_not_offered():
    growth = Growth(("a", "b"))
    growth.watch("a", torch.tensor([3.0, 2.0, 1.0]), 3)
    growth.watch("b", torch.tensor([[9.0], [8.0]]), 2)
    growth.count()
    assert growth.best({"a": 0}, torch.tensor([0]), 2, Moves(), BETAS).keys.tolist() == [1, 2]
    assert growth.best({"a": 0, "b": 3}, torch.tensor([4]), 2, Moves(), BETAS).keys.tolist() == [0, 3]
    assert len(growth.best({"a": 0}, torch.arange(3), 2, Moves(), BETAS)) == 0
    assert len(growth.best({"unseen": 0}, NOTHING, 2, Moves(), BETAS)) == 0
    growth.clear()
    assert len(growth.best({"a": 0}, NOTHING, 2, Moves(), BETAS)) == 0


def test_statistics_restored_go_on_and_share_no_memory_with_the_checkpoint_or_a_dense_gradient():
    first, second = Growth(("a", "none", "b")), Growth(("a", "none", "b"))
    dense = torch.arange(1000.0)
    first.watch("b", dense, 4)
    first.watch("a", -dense, 2)
    first.count()
    saved = first.tensors(NOTHING.device)
    assert saved["counts"].tolist() == [2, 0, 4] and saved["samples"].tolist() == [1, 0, 1]
    assert all(tensor.untyped_storage().nbytes() <= 100 for tensor in saved.values())
    second.restore({name: tensor.clone() for name, tensor in saved.items()}, NOTHING.device)
    for growth in (first, second):
        growth.watch("a", dense, 2)
        growth.count()
    assert all(torch.equal(one, second.tensors(NOTHING.device)[name]) for name, one in first.tensors("cpu").items())
    assert saved["sums"].tolist() == [-998, -999, 996, 997, 998, 999], "as it was saved"


def test_an_entry_seeded_without_bias_or_drawn_takes_a_step_of_one_rate_and_one_seeded_as_spiel_a_sixth():
    steps = {}
    for seeding in ("unbiased", "zero", "mean"):
        module = nn.Module()
        module.w = nn.Parameter(torch.zeros(6), requires_grad=False)
        delta = SparseDelta({"w": torch.tensor([0])})
        optimizer = FlatAdamW(delta.values)
        moves = Moves(every=5, first_share=1.0, rho=0.0, window=5, seeding=seeding)
        moving = MovingSupport(delta, optimizer, moves, steps=100, seed=0)
        with working_copy(module, delta, watch=moving.watch) as copy:
            for step in range(6):
                (module.w * torch.tensor([0.1, 0.2, 0.3, 5.0, 0.4, 0.5])).sum().backward()
                optimizer.step(0.01)
                moving.advance(copy)
                assert delta.indices.tolist() == ([0] if step < 4 else [3])
        steps[seeding] = -delta.values.item() / 0.01
    assert steps["unbiased"] == pytest.approx(1, rel=1e-3) and steps["zero"] == pytest.approx(1, rel=1e-3)
    assert (
        steps["mean"] == pytest.approx((1 - 0.999**5) ** 0.5 / (1 - 0.9**5), rel=1e-2) == pytest.approx(0.17, abs=0.01)
    )
