import hashlib

import pytest
import torch

from kusabi.adapters.bottleneck_birth import fresh
from kusabi.adapters.bottleneck_form import Form
from kusabi.adapters.prune import Pruning
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.errors import AdapterError

WIDTHS = {"a.mlp": 96, "b.mlp": 64}


def tensors(part):
    return {name: (indices.tolist(), values.tolist()) for name, indices, values in part.parts()}


@pytest.mark.parametrize(("init", "spread"), [("normal", 0.02), ("kaiming", 96**-0.5 / 3**0.5)])
def test_down_is_drawn_by_seed_and_name_and_all_else_is_zero(init, spread):
    part = fresh(Form(widths=WIDTHS, size=32), init=init)
    for name, own in part.slices.items():
        values = part.values.data[own]
        if name == "a.mlp.down":
            assert values.std() == pytest.approx(spread, rel=0.05) and abs(values.mean()) < spread / 20
            assert init == "normal" or values.abs().max() <= 96**-0.5
        assert bool(values.any()) == name.endswith(".down")
    alone = fresh(Form(widths={"b.mlp": 64}, size=32), init=init)
    assert tensors(alone)["b.mlp.down"] == tensors(part)["b.mlp.down"], "whatever else there is"
    other = fresh(Form(widths=WIDTHS, size=32, seed=1), init=init)
    assert tensors(other)["b.mlp.down"] != tensors(part)["b.mlp.down"]


def test_the_stream_is_golden():
    part = fresh(Form(widths={"x": 8}, size=4, seed=3), Pruning("magnitude", 0.5))
    found = (part.values.data * 2**16).round().to(torch.int32).numpy().tobytes() + part.indices.numpy().tobytes()
    assert hashlib.sha256(found).hexdigest()[:16] == "417063d49fad3b67"


def test_survivors_keep_the_values_that_the_pruning_saw():
    whole, part = fresh(Form(widths=WIDTHS, size=8)), fresh(Form(widths=WIDTHS, size=8), Pruning("magnitude", 0.3))
    dense = {name: torch.tensor(values) for name, (_, values) in tensors(whole).items()}
    for name, indices, values in part.parts():
        if name.endswith(".down"):
            kept = dense[name][indices.long()]
            assert torch.equal(kept, values) and 0 < len(kept) < len(dense[name])
            assert kept.abs().min() > dense[name].abs().quantile(0.5)
    up = part.counts[part.names.index("a.mlp.up")]
    assert 0.2 < up / 768 < 0.4, "the up that was scored is as large as down"


@pytest.mark.parametrize("rule", ["random", "magnitude", "synflow"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("widen", [1, 4])
def test_a_budget_is_exact_with_biases_counted(rule, scope, biases, widen):
    form = Form(widths=WIDTHS, size=4, biases=biases)
    part = fresh(form, Pruning(rule, entries=500, scope=scope, widen=widen))
    assert len(part) == 500 and part.form.size == 4 * widen
    bias = sum(count for name, count in zip(part.names, part.counts, strict=True) if name.endswith("_bias"))
    assert bias == (160 + 8 * widen if biases else 0)


def test_large_sparse_is_wider_by_as_many_entries():
    form = Form(widths=WIDTHS, size=4)
    dense, wide = fresh(form), fresh(form, Pruning("magnitude", widen=4))
    assert len(dense) == len(wide) == 2 * 4 * 160 + 8 + 160 and wide.form.size == 16
    half, halved = fresh(form, Pruning(density=0.5)), fresh(form, Pruning("synflow", density=0.5, widen=2))
    assert len(half) == len(halved) == 4 * 160 + 168
    assert max(int(at.max()) for name, at, _ in wide.parts() if name.endswith(".down")) >= 4 * 96


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        (Pruning(entries=168), "a budget of 168 entries does not suit blocks of 1280 weights and 168 biases"),
        (Pruning(entries=1449), "a budget of 1449 entries"),
        (Pruning(entries=-1), "a budget of -1 entries"),
        (Pruning(widen=2**15), "'size'"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(pruning, message):
    with pytest.raises(AdapterError, match=message):
        fresh(Form(widths=WIDTHS, size=4), pruning)


def test_an_initialisation_that_changes_the_model_is_not_offered(tiny):
    with pytest.raises(AdapterError, match="'bert' is not offered; write normal or kaiming"):
        fresh(Form(widths=WIDTHS, size=4), init="bert")
    with pytest.raises(AdapterError, match=r"a\.mlp: the model has no such module; b\.mlp"):
        fresh(Form(widths=WIDTHS, size=4), module=load_backbone(tiny("clip")).module)
