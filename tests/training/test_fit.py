import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import plan
from kusabi.backbones.digest import module_digest
from kusabi.errors import AdapterError
from kusabi.spec import SparseDeltaSpec, TrainingSpec
from kusabi.training.fit import FitState, batch_rows, choose_support, fit
from kusabi.training.texts import class_texts
from kusabi.training.views import encode_views

PROMPTS = (("red",), ("green", "a green thing"), ("blue",))
SHORT = TrainingSpec(steps=4, batch_size=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def views(backbone, dataset):
    return encode_views(backbone, dataset, dataset.train, 7, views=2, augment="safe", seed=0)


def start(backbone, views, targets, rule="gradient", train_head=True):
    with torch.no_grad():
        prototypes = Prototypes(class_texts(backbone, PROMPTS), backbone.scale, backbone.bias)
    chosen = choose_support(backbone, views, prototypes, PROMPTS, targets, rule, 0, "float32")
    return FitState(SparseDelta(chosen), prototypes, train_head)


def run(state, backbone, views, targets, spec=SHORT, precision="float32"):
    return list(fit(state, backbone, views, PROMPTS, targets, spec, shots=4, seed=0, precision=precision))


@pytest.mark.parametrize("rule", ["random", "magnitude", "gradient"])
def test_the_loss_falls_and_the_backbone_is_bitwise_the_same(rule, backbone, views, targets):
    before = module_digest(backbone.module)
    state = start(backbone, views, targets, rule)
    records = run(state, backbone, views, targets, TrainingSpec(steps=12, batch_size=24, learning_rate=1e-2))
    assert [record.step for record in records] == list(range(1, 13))
    assert records[-1].loss < records[0].loss
    assert module_digest(backbone.module) == before
    assert all(not parameter.requires_grad for parameter in backbone.module.parameters())


def test_stopped_and_gone_on_with_is_bitwise_the_same(backbone, views, targets):
    whole = start(backbone, views, targets)
    run(whole, backbone, views, targets)
    first = start(backbone, views, targets)
    records = fit(first, backbone, views, PROMPTS, targets, SHORT, shots=4, seed=0, precision="float32")
    next(records), next(records)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    records.close()
    second = start(backbone, views, targets)
    second.restore(saved)
    assert len(run(second, backbone, views, targets)) == 2
    assert torch.equal(whole.delta.values, second.delta.values)
    assert torch.equal(whole.prototypes.displacement, second.prototypes.displacement)


def test_a_closed_generator_leaves_the_backbone_as_it_was(backbone, views, targets):
    before = module_digest(backbone.module)
    records = fit(
        start(backbone, views, targets), backbone, views, PROMPTS, targets, SHORT, shots=4, seed=0, precision="float32"
    )
    next(records)
    assert module_digest(backbone.module) != before
    records.close()
    assert module_digest(backbone.module) == before


def test_a_pure_text_classifier_is_not_trained(backbone, views, targets):
    state = start(backbone, views, targets, train_head=False)
    run(state, backbone, views, targets)
    assert not state.prototypes.displacement.any() and state.prototypes.log_gain == 0
    assert state.delta.values.any()


def test_the_text_tower_learns_too(backbone, dataset):
    targets = plan(backbone.module, backbone.blocks, SparseDeltaSpec(tower="text", layers="last-1", budget=200))
    frozen = encode_views(backbone, dataset, dataset.train, None, views=1, augment="none", seed=0)
    before = module_digest(backbone.module)
    state = start(backbone, frozen, targets, train_head=False)
    records = run(state, backbone, frozen, targets, TrainingSpec(steps=8, batch_size=12, learning_rate=3e-2))
    assert records[-1].loss < records[0].loss and module_digest(backbone.module) == before


def test_bf16_autocast_sees_every_fold(backbone, views, targets):
    losses = {}
    for precision in ("float32", "bfloat16"):
        state = start(backbone, views, targets, train_head=False)  # so that folds alone can move the loss
        spec = TrainingSpec(steps=3, batch_size=24, learning_rate=3e-3)  # every step sees every view
        losses[precision] = [record.loss for record in run(state, backbone, views, targets, spec, precision)]
    fallen = losses["float32"][0] - losses["float32"][-1]
    assert fallen > 0.05 and losses["bfloat16"] == pytest.approx(losses["float32"], abs=fallen / 4)


def test_gradient_support_holds_the_largest_gradients(backbone, views, targets):
    state = start(backbone, views, targets)
    name = targets.targets[0].tensor
    weight = dict(backbone.module.named_parameters())[name]
    weight.requires_grad_(True)
    try:
        from kusabi.backbones.prefix import finish

        logits = state.prototypes(finish(backbone, views.states, 7))
        torch.nn.functional.cross_entropy(logits[:12], views.labels[:12], reduction="sum").backward()
        scores = weight.grad.abs().flatten()
    finally:
        weight.grad = None
        weight.requires_grad_(False)
        state.prototypes.zero_grad()
    chosen = state.delta.indices[state.delta.slices[name]].long()
    outside = torch.ones_like(scores, dtype=torch.bool)
    outside[chosen] = False
    assert scores[chosen].min() >= scores[outside].max() * 0.99


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**62))
def test_batches_cover_every_view_once_a_round(count, batch, seed):
    batch = min(batch, count)
    rows = [row for step in range(count) for row in batch_rows(count, batch, seed, step)]
    for lap in range(batch):
        assert sorted(rows[lap * count : (lap + 1) * count]) == list(range(count))


def test_gradients_that_overflow_are_refused_and_the_backbone_is_as_before(backbone, views, targets):
    before = module_digest(backbone.module)
    state = start(backbone, views, targets)
    state.prototypes.log_gain.data.fill_(1e6)
    with pytest.raises(AdapterError, match="step 1 are not finite in float32"):
        run(state, backbone, views, targets)
    assert module_digest(backbone.module) == before
