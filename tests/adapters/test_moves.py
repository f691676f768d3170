import math
from itertools import pairwise

import pytest
import torch

from kusabi.adapters.moves import Move, Moves
from kusabi.adapters.presets import SPIEL
from kusabi.errors import AdapterError


def test_moves_come_when_they_are_due_and_their_share_falls_to_zero():
    spiel = SPIEL.moves
    assert [step for step in range(60) if spiel.due(step)] == [5, 25, 45]
    assert [spiel.next_due(step) for step in (1, 5, 6, 25, 26)] == [5, 5, 25, 25, 45]
    assert [step for step in range(30) if Moves(every=10).due(step)] == [10, 20]
    assert not any(Moves().due(step) for step in range(30))
    assert spiel.replaced(5, 100) == 1.0 and spiel.replaced(25, 100) == pytest.approx(0.15)
    for schedule in ("linear", "cosine"):
        moves = Moves(every=1, share=0.4, schedule=schedule)
        shares = [moves.replaced(step, 50) for step in range(1, 51)]
        assert all(later < earlier for earlier, later in pairwise(shares))
        assert shares[24] == pytest.approx(0.2) and shares[-1] == 0.0 and moves.replaced(51, 50) == 0.0
    assert Moves(every=1, share=0.4, schedule="cosine").replaced(10, 50) == pytest.approx(
        0.2 * (1 + math.cos(math.pi / 5))
    )


def test_moves_that_make_no_sense_are_refused_with_everything_that_is_wrong():
    with pytest.raises(AdapterError) as refusal:
        Moves(every=5, phase=5, share=1.5, rho=-0.1, window=0)
    for said in ("share is 1.5", "rho is -0.1", "phase is 5, not below every = 5", "window is 0"):
        assert said in str(refusal.value)
    with pytest.raises(AdapterError, match="every is -1"):
        Moves(every=-1)
    with pytest.raises(AdapterError, match="union needs every"):
        Moves(union=True)


def test_whatever_else_is_kept_per_entry_can_follow_a_move():
    move = Move(torch.tensor([1, -1, 3, -1]))
    assert move.carried(torch.tensor([10.0, 11.0, 12.0, 13.0])).tolist() == [11, 0, 13, 0]
    assert move.carried(torch.tensor([[1, 1], [2, 2], [3, 3], [4, 4]])).tolist() == [[2, 2], [0, 0], [4, 4], [0, 0]]
    assert move.entered == 2
