import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.compose import compose
from kusabi.adapters.interference import interference, layer_of
from kusabi.adapters.low_rank import fresh
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError

SIZES = {"vision.2.q.weight": 11, "vision.2.k.weight": 8, "vision.10.q.weight": 9, "text.0.q.weight": 7, "proj": 5}
LAYERS = {"vision.2": {"vision.2.q.weight", "vision.2.k.weight"}, "vision.10": {"vision.10.q.weight"}}
LAYERS |= {"text.0": {"text.0.q.weight"}, "proj": {"proj"}}


def delta_of(entries):
    delta = SparseDelta({name: torch.tensor(sorted(row), dtype=torch.int64) for name, row in entries.items()})
    delta.values.data.copy_(torch.tensor([row[i] for row in entries.values() for i in sorted(row)]))
    return delta


@st.composite
def entries(draw):
    names = draw(st.lists(st.sampled_from(sorted(SIZES)), min_size=1, unique=True))
    values = st.sampled_from([-1.5, -0.25, 0.0, 0.5, 2.0, 2.0**100, -(2.0**-100)]) | st.floats(-4, 4, width=32)
    return {name: draw(st.dictionaries(st.integers(0, SIZES[name] - 1), values)) for name in names}


def naive(a, b, names):
    # Sets and dense vectors over the named weights; no division of labour by target.
    places = [(name, i) for name in sorted(names) for i in range(SIZES[name])]
    rows = [[row.get(name, {}).get(i) for name, i in places] for row in (a, b)]
    both = [(x, y) for x, y in zip(*rows, strict=True) if x is not None and y is not None]
    counts = [sum(v is not None for v in row) for row in rows]
    dense = [[v or 0.0 for v in row] for row in rows]
    norms = [math.sqrt(math.fsum(v * v for v in row)) for row in dense]
    dot = math.fsum(x * y for x, y in zip(*dense, strict=True))
    return {
        "entries": counts,
        "shared": len(both),
        "share": len(both) / min(counts) if min(counts) else 0.0,
        "expected": sum(len(a.get(n, {})) * len(b.get(n, {})) / SIZES[n] for n in names),
        "conflicts": sum((x < 0 < y) or (y < 0 < x) for x, y in both),
        "cosine": dot / norms[0] / norms[1] if all(norms) else None,
    }


def matches(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), key
    return True


@settings(max_examples=20, deadline=None)
@given(st.lists(entries(), min_size=2, max_size=3))
def test_the_card_counts_what_sets_and_dense_vectors_say_per_target_layer_and_in_all(rows):
    labels = ["a", "b", "c"][: len(rows)]
    card = interference([delta_of(row) for row in rows], labels, SIZES).to_json()
    assert [pair["labels"] for pair in card["pairs"]] == [list(p) for p in itertools.combinations(labels, 2)]
    for pair, (a, b) in zip(card["pairs"], itertools.combinations(rows, 2), strict=True):
        names = a.keys() | b.keys()
        assert pair["targets"].keys() == names
        assert all(matches(pair["targets"][name], naive(a, b, {name})) for name in names)
        assert pair["layers"].keys() == {layer for layer, targets in LAYERS.items() if targets & names}
        assert all(matches(found, naive(a, b, LAYERS[layer] & names)) for layer, found in pair["layers"].items())
        assert matches(pair["total"], naive(a, b, names))


def test_the_card_of_two_adapters_worked_out_by_hand():
    a = delta_of({"vision.2.q.weight": {0: 1.0, 1: 2.0, 4: -2.0}, "proj": {1: 1.0}})
    b = delta_of({"vision.2.q.weight": {1: -1.0, 4: -2.0}})
    pair = interference([a, b], ["parts", "tiles"], SIZES).pairs[0]
    found = pair.targets["vision.2.q.weight"]
    assert (found.shared, found.share, found.conflicts, found.expected) == (2, 1.0, 1, 6 / 11)
    assert found.cosine == pytest.approx((-2 + 4) / (3 * math.sqrt(5)))
    assert pair.total.cosine == pytest.approx(2 / math.sqrt(10 * 5)) and pair.total.first == 4
    assert pair.targets["proj"].cosine is None and pair.targets["proj"].share == 0.0


@settings(max_examples=20, deadline=None)
@given(entries(), entries())
def test_two_adapters_get_in_each_others_way_alike(a, b):
    one = interference([delta_of(a), delta_of(b)], ["a", "b"], SIZES).pairs[0].total.to_json()
    other = interference([delta_of(b), delta_of(a)], ["b", "a"], SIZES).pairs[0].total.to_json()
    assert one.pop("entries") == other.pop("entries")[::-1]
    assert matches(one, other)


@settings(max_examples=20, deadline=None)
@given(entries())
def test_an_adapter_is_wholly_in_its_own_way_and_opposed_to_its_negative(row):
    delta = delta_of(row)
    card = interference([delta, delta, compose([delta], [-1])], ["a", "again", "negative"], SIZES)
    same, opposed = card.pairs[0].total, card.pairs[1].total
    nonzero = int((delta.values != 0).sum())
    assert same.shared == opposed.shared == len(delta)
    assert (same.conflicts, opposed.conflicts) == (0, nonzero)
    assert (same.cosine, opposed.cosine) == ((1.0, -1.0) if nonzero else (None, None))


def test_fresh_adapters_have_an_overlap_but_no_cosine_and_no_conflict():
    fresh = [SparseDelta({"proj": torch.tensor([0, 2]), "text.0.q.weight": torch.tensor([], dtype=torch.int64)})] * 2
    total = interference(fresh, ["a", "b"], SIZES).pairs[0].total
    assert (total.shared, total.conflicts, total.cosine) == (2, 0, None)


def test_equal_seeds_give_equal_supports_and_the_card_shows_it_against_chance():
    deltas = [SparseDelta({"w": random_support(1000, 10, seed, "w")}) for seed in (7, 7, 8)]
    same, other, _ = interference(deltas, ["a", "b", "c"], {"w": 1000}).pairs
    assert same.total.share == 1.0 and same.total.expected == pytest.approx(0.1) and other.total.shared <= 2


def test_random_supports_overlap_as_much_as_expected_on_average():
    shared = []
    for seed in range(200):
        deltas = [SparseDelta({"w": random_support(60, k, seed, name)}) for k, name in ((20, "one"), (30, "two"))]
        total = interference(deltas, ["a", "b"], {"w": 60}).pairs[0].total
        shared.append(total.shared)
        assert total.expected == 10.0
    deviation = math.sqrt(20 * 0.5 * 0.5 * 40 / 59)  # hypergeometric
    assert abs(sum(shared) / 200 - 10) < 3.3 * deviation / math.sqrt(200)


def test_plain_data_survives_json_and_holds_no_number_that_json_lacks():
    deltas = [delta_of({"proj": {0: 1e-38, 1: 3e38}, "vision.2.q.weight": {0: 0.0}}) for _ in range(2)]
    card = interference(deltas, ["a", "b"], SIZES).to_json()
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_the_table_has_a_line_for_every_layer_and_one_for_all():
    a = delta_of({"vision.2.q.weight": {0: 1.0, 1: 2.0, 4: -2.0}, "vision.10.q.weight": {1: 1.0}})
    b = delta_of({"vision.2.q.weight": {1: -1.0, 4: -2.0}, "text.0.q.weight": {0: 1.0}})
    lines = interference([a, b], ["parts", "tiles"], SIZES).table().splitlines()
    assert lines == [
        "               shared  of smaller  by chance  opposed  cosine",
        "parts + tiles",
        "  text.0            0        0.0%        0.0        0       -",
        "  vision.2          2      100.0%        0.5        1   0.298",
        "  vision.10         0        0.0%        0.0        0       -",
        "  all               2       66.7%        0.5        1   0.258",
    ]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.booleans())
def test_a_low_rank_part_is_a_dense_delta_to_the_card_and_parts_of_one_adapter_add_up(seed, both):
    name = "vision.2.k.weight"
    low_rank = fresh({name: (2, 4)}, 1, 3.0, seed=seed)
    low_rank.values.data = torch.randn(len(low_rank), generator=torch.Generator().manual_seed(seed))
    a, b, _ = low_rank.factors(name)
    matrix = (3.0 * b.double() @ a.double()).flatten()
    beside = {name: {1: 0.5, 6: -2.0}, "proj": {0: 1.0}} if both else {}
    dense = {name: {i: v + beside.get(name, {}).get(i, 0.0) for i, v in enumerate(matrix.tolist())}}
    dense |= {"proj": beside["proj"]} if both else {}
    other = {name: {0: 1.0, 1: -1.0, 7: 0.25}, "proj": {0: -1.0, 3: 1.0}}
    mixed = [low_rank, delta_of(beside)] if both else low_rank
    pair = interference([mixed, delta_of(other)], ["a", "b"], SIZES).to_json()["pairs"][0]
    for target in (name, "proj"):
        found, wanted = pair["targets"][target], naive(dense, other, {target})
        assert found.pop("cosine") == pytest.approx(wanted.pop("cosine"), abs=1e-5)
        assert matches(found, wanted)
    assert pair["targets"][name]["entries"] == [8, 3] and pair["targets"][name]["share"] == 1.0


def test_the_layer_of_a_weight_is_its_name_through_the_first_number():
    assert layer_of("text_model.encoder.layers.11.mlp.fc1.weight") == "text_model.encoder.layers.11"
    assert layer_of("vision.3.mlp.0.weight") == "vision.3" and layer_of("0.weight") == "0"
    assert layer_of("visual_projection.weight") == "visual_projection" and layer_of("proj") == "proj"
    assert layer_of("block²1.w") == "block²1"


def test_large_supports_are_compared_without_a_square_of_memory():
    random = torch.Generator().manual_seed(0)
    deltas = [SparseDelta({"w": torch.randperm(300_000, generator=random)[:100_000].sort().values}) for _ in range(2)]
    shared = len(set(deltas[0].indices.tolist()) & set(deltas[1].indices.tolist()))
    assert interference(deltas, ["a", "b"], {"w": 300_000}).pairs[0].total.shared == shared


def test_only_two_sparse_supports_are_searched_and_the_card_is_as_if_all_were(monkeypatch):
    random, search, searched = torch.Generator().manual_seed(0), torch.isin, []
    monkeypatch.setattr(torch, "isin", lambda *sides: searched.append(sides) or search(*sides))
    rows = [torch.arange(40), torch.arange(40), torch.tensor([0, 7, 39]), torch.tensor([7, 8])]
    deltas = [SparseDelta({"w": row}) for row in rows]
    for delta in deltas:
        delta.values.data = torch.randn(len(delta), generator=random)
    pairs = interference(deltas, ["dense", "other", "sparse", "few"], {"w": 40}).pairs
    assert len(searched) == 2  # both ways, for the last pair
    for pair, (a, b) in zip(pairs, itertools.combinations(deltas, 2), strict=True):
        mine, theirs = search(a.indices, b.indices), search(b.indices, a.indices)
        products = a.values.data.double()[mine] * b.values.data.double()[theirs]
        assert (pair.total.first, pair.total.second, pair.total.shared) == (len(a), len(b), int(mine.sum()))
        assert (pair.total.dot, pair.total.conflicts) == (float(products.sum()), int((products < 0).sum()))


def test_a_card_that_cannot_be_made_is_refused():
    a, b = delta_of({"proj": {0: 1.0}}), delta_of({"proj": {4: 1.0}})
    with pytest.raises(AdapterError, match="between adapters"):
        interference([a], ["a"], SIZES)
    for labels in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(AdapterError, match="2 adapters need as many labels, all different; these are a"):
            interference([a, b], labels, SIZES)
    with pytest.raises(AdapterError, match="adapter 2, proj: index 4 is outside its 4 entries"):
        interference([a, b], ["a", "b"], {"proj": 4})
    with pytest.raises(AdapterError, match="adapter 1, proj: the model has no such weight; adapter 2, proj: the"):
        interference([a, b], ["a", "b"], {})
    b.values.data.fill_(float("nan"))
    with pytest.raises(AdapterError, match="adapter 2, proj: values that are not finite"):
        interference([a, b], ["a", "b"], SIZES)


@pytest.mark.gpu
def test_on_a_gpu_the_card_is_the_same():
    rows = [{"proj": {0: 1.0, 3: -2.0}}, {"proj": {3: 1.0, 4: 1.0}}]
    plain, moved = [delta_of(row) for row in rows], [delta_of(row).cuda() for row in rows]
    assert interference(moved, ["a", "b"], SIZES).to_json() == interference(plain, ["a", "b"], SIZES).to_json()
