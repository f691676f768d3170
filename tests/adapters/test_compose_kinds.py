import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters import low_rank
from kusabi.adapters.attach import attached
from kusabi.adapters.bottleneck_birth import fresh as fresh_bottleneck
from kusabi.adapters.bottleneck_form import checked_form
from kusabi.adapters.compose import compose
from kusabi.adapters.compose_kinds import add_low_rank, compose_kinds
from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError

SHAPES = {"vision.2.linear1.weight": (16, 8), "vision.3.self_attn.in_proj_weight": (24, 8)}
UP, FUSED = SHAPES
FACTORS = st.floats(-3, 3, width=32) | st.sampled_from([1.0, -1.0, 0.5, 0.0])


def lora(seed, names=tuple(SHAPES), rank=2, alpha=4.0, **options):
    part = low_rank.fresh({n: SHAPES[n] for n in names}, rank, alpha, seed=seed, **options)
    noise = torch.randn(len(part), generator=torch.Generator().manual_seed(seed))
    part.values.data = (part.values.data + noise).to(torch.bfloat16).float()
    return part


def sparse(seed, *names):
    random = torch.Generator().manual_seed(seed)
    delta = SparseDelta({name: torch.randperm(100, generator=random)[:20].sort().values for name in names})
    delta.values.data = torch.randn(len(delta), generator=random) * 0.1
    return delta


def bits(part):
    return part.names, part.settings(), part.indices.tolist(), part.values.detach().view(torch.int32).tolist()


def dense(part, weight=1.0):
    # Straight from the factors, in float64.
    found = {}
    for name, r in part.ranks.items():
        a, b, gate = (None if t is None else t.double() for t in part.factors(name))
        scale = part.alphas[name] / (r**0.5 if part.rank_stabilized else r)
        found[name] = weight * scale * (b * (1 if gate is None else gate)) @ a
    return found


SETTINGS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "names": st.sampled_from([(UP,), (FUSED,), (UP, FUSED), (FUSED, UP)]),
        "rank": st.integers(1, 3),
        "alpha": st.sampled_from([0.3, 1.0, 4.0]),
        "rank_stabilized": st.booleans(),
        "shrinkage": st.sampled_from([None, 0.1]),
    }
)
CASES = st.lists(st.tuples(SETTINGS, FACTORS), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_low_rank_updates_add_up_to_the_sum_of_their_dense_matrices_and_ranks(case):
    parts, weights = [lora(**fields) for fields, _ in case], [weight for _, weight in case]
    composed = add_low_rank(parts, weights)
    wanted, mass, ranks = {}, {}, {}
    for part, weight in zip(parts, weights, strict=True):
        for name, matrix in dense(part, weight).items():
            wanted[name] = wanted.get(name, 0) + matrix
            mass[name] = mass.get(name, 0) + float(matrix.abs().sum()) + 1e-6
            ranks[name] = ranks.get(name, 0) + part.ranks[name]
    assert composed.ranks == ranks and set(composed.weights) == set(wanted)
    for name, matrix in wanted.items():
        at, amounts = composed.added(name)
        assert at is None
        assert float((amounts.double().view(SHAPES[name]) - matrix).abs().max()) < 1e-5 * mass[name]


@settings(max_examples=20, deadline=None)
@given(CASES)
def test_the_order_of_low_rank_adapters_never_matters_not_by_one_bit(case):
    pairs = [(lora(**fields), weight) for fields, weight in case]
    one, two, three = (
        bits(add_low_rank([p for p, _ in order], [w for _, w in order]))
        for order in (pairs, pairs[::-1], pairs[1:] + pairs[:1])
    )
    assert one == two == three


@settings(max_examples=10, deadline=None)
@given(SETTINGS)
def test_one_low_rank_adapter_with_weight_1_comes_back_bitwise(fields):
    part = lora(**fields)
    before = bits(part)
    composed = add_low_rank([part], [1])
    assert bits(composed) == before and composed is not part
    composed.values.data.fill_(7.0)
    assert bits(part) == before


def test_equal_scales_and_signs_lose_no_bit_of_a_and_b_and_other_weights_go_into_b():
    a, b = lora(0, (UP,)), lora(1, (UP,))
    composed = add_low_rank([a, b], [1, -1])
    assert composed.scale(UP) == a.scale(UP) == 2.0
    rows = [tuple(row) for part in (a, b) for row in part.factors(UP)[0].tolist()]
    assert sorted(tuple(row) for row in composed.factors(UP)[0].tolist()) == sorted(rows)
    columns = [tuple((sign * c).tolist()) for part, sign in ((a, 1), (b, -1)) for c in part.factors(UP)[1].T]
    assert sorted(tuple(c.tolist()) for c in composed.factors(UP)[1].T) == sorted(columns)
    halved = add_low_rank([a], [-0.5])
    assert halved.scale(UP) == 1.0 and torch.equal(halved.factors(UP)[1], -a.factors(UP)[1])
    assert add_low_rank([a], [0]).added(UP)[1].count_nonzero() == 0


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, -1.0, 2.0)])
def test_any_mixture_composed_does_to_a_model_what_its_parts_do_together(towers, digest, weights):
    module, adapters = towers(), [[sparse(0, UP, FUSED)], [lora(1, (UP,))], [sparse(2, UP), lora(3)]]
    before = digest(module)
    scaled = copy.deepcopy(adapters)
    for parts, weight in zip(scaled, weights, strict=True):
        for part in parts:
            part.rescale(weight)
    composed = compose_kinds(adapters, weights, sizes={UP: 128, FUSED: 192})
    assert [type(part) for part in composed] == [SparseDelta, LowRank]
    with attached(module, *(part for parts in scaled for part in parts)):
        wanted = {name: module.get_parameter(name).detach().clone() for name in SHAPES}
    with attached(module, *composed):
        for name, weight in wanted.items():
            assert torch.allclose(module.get_parameter(name), weight, atol=1e-5)
            assert not torch.equal(weight, towers().get_parameter(name))
    assert digest(module) == before
    assert [bits(part) for part in composed] == [
        bits(part) for part in compose_kinds(adapters[::-1], weights[::-1], sizes={UP: 128, FUSED: 192})
    ]


@pytest.mark.parametrize("how", ["sum", "ties"])
def test_sparse_deltas_alone_stay_one_sparse_delta_as_compose_makes_it(how):
    a, b = sparse(0, UP), sparse(1, UP, FUSED)
    (made,) = compose_kinds([[a], [b]], [1, 0.5], how)
    assert bits(made) == bits(compose([a, b], [1, 0.5], how))
    (both,) = compose_kinds([[a, b]], [1])
    assert bits(both) == bits(compose([a, b], [1, 1])), "an adapter of two sparse deltas"


def test_what_has_no_sum_or_no_single_entries_is_refused_with_every_part(towers):
    form = checked_form({"widths": {"vision.2.linear2": 8}, "size": 2, "seed": 0})
    block = fresh_bottleneck(form, None)
    with pytest.raises(AdapterError) as refusal:
        compose_kinds([[sparse(0, UP)], [block], [lora(0), block]], [1, 1, 1], "ties")
    assert str(refusal.value).split(": ", 1)[1].split("; ")[:2] == [
        "adapter 2: a bottleneck computes beside the model, not linearly, and has no sum",
        "adapter 3: 'ties' is a rule for single entries, a low rank part has none",
    ]
    for how in ("ties", "disjoint"):
        with pytest.raises(AdapterError, match=f"adapter 1: '{how}' is a rule for single entries"):
            compose_kinds([[lora(0)]], [1], how)
    with pytest.raises(AdapterError, match="no adapter to compose"):
        compose_kinds([], [])
    with pytest.raises(AdapterError, match="2 adapters and 1 weights"):
        compose_kinds([[lora(0)], [lora(1)]], [1])


def test_low_rank_parts_of_another_model_are_refused_by_name():
    other = low_rank.fresh({UP: (8, 16)}, 1, 1.0)
    with pytest.raises(AdapterError, match=rf"added up: {UP} is 8 x 16 and 16 x 8$"):
        add_low_rank([lora(0), other], [1, 1])
    with pytest.raises(AdapterError, match=rf"adapter 1, {FUSED}: a matrix of 192 entries for a weight of 191$"):
        compose_kinds([[lora(0)]], [1], sizes={UP: 128, FUSED: 191})
    with pytest.raises(AdapterError, match=rf"{UP} is too large for fp32"):
        add_low_rank([lora(0)], [1e300])
