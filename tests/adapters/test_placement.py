from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.placement import Piece, read_placement, write_placement
from kusabi.adapters.targets import everything, placed_blocks, plan
from kusabi.errors import AdapterError
from kusabi.spec import AdapterSpec


@dataclass(frozen=True)
class Place:
    tower: str
    layer: int
    projection: str


WHOLE = [Place(tower, layer, name) for tower in ("vision", "text") for layer in range(4) for name in ("q", "k.w", "v")]


def meant(towers, blocks, text):
    return [
        (t.tower, t.layer, t.projection)
        for t in plan(towers(), blocks, AdapterSpec(placement=text, density=1.0)).targets
    ]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(WHOLE), min_size=1), st.randoms())
def test_a_text_means_exactly_the_weights_it_was_written_for_in_whatever_order(chosen, random):
    shuffled = sorted(chosen, key=lambda _: random.random())
    text = write_placement([place for place in WHOLE if place in chosen], WHOLE)
    assert write_placement(sorted(shuffled, key=WHOLE.index), WHOLE) == text
    layers = {
        (tower, int(part.split("-")[0]) + more): piece.projections
        for piece in read_placement(text)
        for tower in piece.towers
        for part in piece.layers.split(",")
        for more in range(int(part.split("-")[-1]) - int(part.split("-")[0]) + 1)
    }
    found = {
        p for p in WHOLE if (names := layers.get((p.tower, p.layer))) and (names == ("*",) or p.projection in names)
    }
    assert found == chosen


def test_a_plan_sits_where_the_text_says_and_in_the_order_of_the_model(towers, blocks):
    attention = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    found = meant(towers, blocks, "text:1:linear?; vision:0-1,3:self_attn; vision:last-1:linear1.weight")
    assert found == [
        *(("vision", layer, name) for layer in (0, 1) for name in attention),
        *(("vision", 3, name) for name in (*attention, "linear1.weight")),
        *(("text", 1, name) for name in ("linear1.weight", "linear2.weight")),
    ]


def test_without_projections_a_piece_means_all_and_both_means_both(towers, blocks):
    assert meant(towers, blocks, "both:upper-half") == [
        (t.tower, t.layer, t.projection) for t in plan(towers(), blocks, AdapterSpec(tower="both", density=1.0)).targets
    ]


def test_the_text_of_a_plan_reads_back_as_the_same_plan(towers, blocks):
    module = towers()
    whole = everything(module, blocks)
    assert len(whole.targets) == 24 and all(target.entries == target.size for target in whole.targets)
    for fields in ({}, {"tower": "both", "layers": "0", "projections": ("linear1.*", "self_attn")}):
        planned = plan(module, blocks, AdapterSpec(**fields, density=0.1))
        text = write_placement(planned.targets, whole.targets)
        assert plan(module, blocks, AdapterSpec(placement=text, density=0.1)) == planned


def test_blocks_are_those_of_all_pieces_once(towers, blocks):
    spec = AdapterSpec(placement="vision:2-3:linear1.*;vision:3;text:0")
    assert [(tower, layer) for tower, layer, _ in placed_blocks(blocks, spec)] == [
        ("vision", 2), ("vision", 3), ("text", 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("sound:1;vision", ["'sound:1' names no tower (vision, text or both)", "'vision' is not TOWER:LAYERS:PROJ"]),
        ("vision:1:a:b; ;vision:1:a,", ["'vision:1:a:b' is not", "'' names no tower", "'vision:1:a,' is not"]),
    ],
)
def test_a_text_that_cannot_be_read_is_one_error_with_every_piece(text, complaints):
    with pytest.raises(AdapterError) as refusal:
        read_placement(text)
    assert all(complaint in str(refusal.value) for complaint in [*complaints, "vision:6-7:mlp.*"])


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (
            "vision:9:*;both:3",
            ["'vision:9:*', vision tower: layers '9': this tower has layers 0 to 3", "layers 0 to 1"],
        ),
        ("vision:some", ["layers 'some' is not understood"]),
        ("vision:1:q,linear1.*,k", ["no weight matches 'q', 'k'; weights", "linear2.weight, self_attn.in_proj_weight"]),
        ("vision:1:*;text:0:mpl", ["'text:0:mpl': no weight matches 'mpl'", "linear1.weight"]),
    ],
)
def test_a_text_that_the_model_does_not_know_is_one_error_with_what_it_knows(towers, blocks, text, complaints):
    with pytest.raises(AdapterError) as refusal:
        plan(towers(), blocks, AdapterSpec(placement=text))
    assert all(complaint in str(refusal.value) for complaint in complaints)


def test_a_piece_is_written_as_it_is_read():
    assert str(Piece("vision", "6-7", ("mlp.*", "q"))) == "vision:6-7:mlp.*,q"
    assert read_placement("vision:6-7:mlp.*,q") == (Piece("vision", "6-7", ("mlp.*", "q")),)
