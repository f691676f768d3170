import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.attach import attached
from kusabi.adapters.compose import compose
from kusabi.adapters.interference import (
    interference,
    layer_of,
    random_free_support,
    taken_positions,
    top_free_support,
)
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support, top_support
from kusabi.errors import AdapterError

UP, FUSED = "vision.2.linear1.weight", "vision.3.self_attn.in_proj_weight"
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


@st.composite
def weights_partly_taken(draw):
    size = draw(st.integers(1, 60))
    taken = draw(st.sets(st.integers(0, size - 1)))
    return size, taken, draw(st.integers(0, size - len(taken)))


@settings(max_examples=20, deadline=None)
@given(weights_partly_taken(), st.integers(0, 2**32), st.data())
def test_a_free_support_is_the_usual_rule_on_the_list_of_free_positions(case, seed, data):
    size, taken, k = case
    free = [i for i in range(size) if i not in taken]
    order = torch.tensor(data.draw(st.permutations(sorted(taken))), dtype=torch.int32)
    levels = st.sampled_from([-math.inf, -1.5, 0.0, 0.5, math.inf])
    scores = torch.tensor(data.draw(st.lists(levels, min_size=size, max_size=size)))
    by_chance = random_free_support(size, k, seed, "w", order)
    by_score = top_free_support(scores.view(1, -1), k, "w", order)
    assert by_chance.tolist() == [free[rank] for rank in random_support(len(free), k, seed, "w").tolist()]
    assert by_score.tolist() == sorted(sorted(free, key=lambda i: (-scores[i].item(), i))[:k])
    for support in (by_chance, by_score):
        assert support.dtype == torch.int32 and support.shape == (k,) and not taken & set(support.tolist())
        assert bool((support[1:] > support[:-1]).all())


def test_with_nothing_taken_the_free_support_is_the_usual_one():
    nothing, scores = torch.tensor([], dtype=torch.int32), torch.linspace(-3, 3, 50).sin()
    assert torch.equal(random_free_support(50, 9, 3, "w", nothing), random_support(50, 9, 3, "w"))
    assert torch.equal(top_free_support(scores, 9, "w", nothing), top_support(scores, 9))


def test_a_free_random_support_is_what_it_always_was_and_differs_by_seed_and_name():
    taken = torch.arange(0, 1000, 3)
    first = random_free_support(1000, 8, 7, "a", taken)
    assert first.tolist() == [1, 83, 167, 322, 356, 398, 427, 703]
    assert not torch.equal(first, random_free_support(1000, 8, 8, "a", taken))
    assert not torch.equal(first, random_free_support(1000, 8, 7, "b", taken)), "equal sizes, other weights"


def test_every_free_position_is_drawn_about_equally_often():
    counts, taken = torch.zeros(16), torch.tensor([0, 3, 4, 15])
    for seed in range(1500):
        counts[random_free_support(16, 3, seed, "w", taken).long()] += 1
    assert not bool(counts[taken].any())
    counts = counts[counts > 0]
    assert len(counts) == 12 and float(((counts - 375) ** 2 / 375).sum()) < 31.3  # chi-squared, 11 degrees, p = 0.001


def test_too_few_free_entries_are_refused_by_name():
    taken = torch.tensor([1, 2, 6])
    with pytest.raises(AdapterError, match=r"^vision\.w: 6 entries are asked for, 5 of 8 are free"):
        random_free_support(8, 6, 0, "vision.w", taken)
    with pytest.raises(AdapterError, match=r"^vision\.w: -1 entries are asked for"):
        random_free_support(8, -1, 0, "vision.w", taken)
    with pytest.raises(AdapterError, match=r"^vision\.w: 6 entries are asked for, 5 of 8 are free"):
        top_free_support(torch.ones(2, 4), 6, "vision.w", taken)
    assert random_free_support(8, 5, 0, "vision.w", taken).tolist() == [0, 3, 4, 5, 7]
    assert top_free_support(torch.ones(2, 4), 5, "vision.w", taken).tolist() == [0, 3, 4, 5, 7]


@pytest.mark.parametrize("taken", [[0, 8], [-1, 3]])
def test_positions_taken_on_another_model_and_scores_that_are_no_numbers_are_refused_by_name(taken):
    for draw in (
        lambda t: random_free_support(8, 2, 0, "vision.w", t),
        lambda t: top_free_support(torch.ones(8), 2, "vision.w", t),
    ):
        with pytest.raises(AdapterError, match=r"^vision\.w: positions taken lie outside its 8 entries"):
            draw(torch.tensor(taken))
    with pytest.raises(AdapterError, match=r"^vision\.w: 1 of 2 scores are not numbers"):
        top_free_support(torch.tensor([0.0, float("nan"), 1.0]), 1, "vision.w", torch.tensor([0]))


def test_positions_taken_are_those_of_all_adapters_on_this_weight():
    deltas = [delta_of({"p": {5: 1.0, 2: 0.0}}), delta_of({"q": {9: 1.0}}), delta_of({"q": {}, "p": {2: 1.0, 0: 1.0}})]
    assert taken_positions(deltas, "p").tolist() == [0, 2, 5] and taken_positions(deltas, "q").tolist() == [9]
    assert taken_positions(deltas, "r").tolist() == [] and taken_positions([], "p").dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_on_free_entries_never_touch_each_others_weights(towers, digest, dtype):
    module, sizes, deltas = towers(dtype=dtype), {UP: 128, FUSED: 192}, []
    before = digest(module)
    for seed in range(3):
        taken = {name: taken_positions(deltas, name) for name in sizes}
        scores = module.get_parameter(UP).detach().abs()
        support = {UP: top_free_support(scores, 40, UP, taken[UP])}
        deltas.append(SparseDelta(support | {FUSED: random_free_support(192, 60, 0, FUSED, taken[FUSED])}))
        deltas[-1].values.data = torch.randn(100, generator=torch.Generator().manual_seed(seed))
    assert all(p.total.shared == 0 == p.total.cosine for p in interference(deltas, ["a", "b", "c"], sizes).pairs)
    alone = []
    for delta in deltas:
        with attached(module, delta):
            alone.append({n: module.get_parameter(n).detach().view(-1)[i.long()] for n, i, _ in delta.parts()})
    with attached(module, compose(deltas, [1, 1, 1], "disjoint")):
        together = digest(module)
        for delta, rows in zip(deltas, alone, strict=True):
            assert all(torch.equal(module.get_parameter(n).view(-1)[i.long()], rows[n]) for n, i, _ in delta.parts())
    with attached(module, *deltas):
        assert digest(module) == together
    assert digest(module) == before
    with pytest.raises(AdapterError, match=rf"^{UP}: 9 entries are asked for, 8 of 128 are free"):
        random_free_support(128, 9, 0, UP, taken_positions(deltas, UP))


@pytest.mark.gpu
def test_on_a_gpu_the_card_and_the_free_supports_are_the_same():
    rows = [{"proj": {0: 1.0, 3: -2.0}}, {"proj": {3: 1.0, 4: 1.0}}]
    plain, moved = [delta_of(row) for row in rows], [delta_of(row).cuda() for row in rows]
    assert interference(moved, ["a", "b"], SIZES).to_json() == interference(plain, ["a", "b"], SIZES).to_json()
    assert torch.equal(taken_positions(moved, "proj"), taken_positions(plain, "proj"))
    scores = torch.tensor([1.0, 2.0, 3.0]).cuda()
    assert top_free_support(scores, 1, "w", torch.tensor([2]).cuda()).tolist() == [1]
