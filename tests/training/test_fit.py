import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from kusabi.adapters.attach import attached
from kusabi.adapters.moves import STILL, Moves
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import plan
from kusabi.backbones.digest import module_digest
from kusabi.errors import AdapterError
from kusabi.spec import AdapterSpec, SafetySpec, TrainingSpec
from kusabi.training.agreement import agreement, symmetric_kl
from kusabi.training.fit import FitState, batch_rows, fit, peak_rate
from kusabi.training.forward import Forward
from kusabi.training.support_choice import SupportChoice, choose_support
from kusabi.training.texts import class_texts
from kusabi.training.views import adapted_features, encode_views

PROMPTS = (("red",), ("green", "a green thing"), ("blue",))
OFF = SafetySpec()
SHORT = TrainingSpec(steps=4, batch_size=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def views(backbone, dataset):
    return encode_views(backbone, dataset, dataset.train, 7, views=2, augment="safe", seed=0)


def start(backbone, views, targets, rule="gradient", train_head=True, moves=STILL, averaged=0.0):
    with torch.no_grad():
        prototypes = Prototypes(class_texts(backbone, PROMPTS), backbone.scale, backbone.bias)
    chosen = choose_support(backbone, views, prototypes, PROMPTS, targets, SupportChoice(rule), 0, "float32")
    return FitState((SparseDelta(chosen),), prototypes, train_head, moves, steps=SHORT.steps, averaged=averaged)


def run(state, backbone, views, targets, spec=SHORT, precision="float32", safety=OFF):
    return list(fit(state, backbone, views, PROMPTS, targets, spec, safety, shots=4, seed=0, precision=precision))


@pytest.mark.parametrize("rule", ["random", "magnitude", "gradient"])
def test_the_loss_falls_and_the_backbone_is_bitwise_the_same(rule, backbone, views, targets):
    before = module_digest(backbone.module)
    state = start(backbone, views, targets, rule)
    records = run(state, backbone, views, targets, TrainingSpec(steps=12, batch_size=24, learning_rate=1e-2))
    assert [record.step for record in records] == list(range(1, 13))
    assert records[-1].loss < records[0].loss
    assert module_digest(backbone.module) == before
    assert all(not parameter.requires_grad for parameter in backbone.module.parameters())


EVERYTHING = SafetySpec(agreement=0.3, average=0.7, stop_loss=1e-9)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(
    ("moves", "safety"),
    [
        (STILL, OFF),
        (Moves(every=2, share=0.5, rho=0.5, window=2), EVERYTHING),
        (Moves(every=1, union=True), EVERYTHING),
    ],
    ids=["still", "moving", "union"],
)
def test_stopped_and_gone_on_with_is_bitwise_the_same(moves, safety, stop, backbone, views, targets):
    whole = start(backbone, views, targets, moves=moves, averaged=safety.average)
    run(whole, backbone, views, targets, safety=safety)
    first = start(backbone, views, targets, moves=moves, averaged=safety.average)
    records = fit(first, backbone, views, PROMPTS, targets, SHORT, safety, shots=4, seed=0, precision="float32")
    for _ in range(stop):
        next(records)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    records.close()
    second = start(backbone, views, targets, "random", moves=moves, averaged=safety.average)
    second.restore(saved)
    assert len(run(second, backbone, views, targets, safety=safety)) == 4 - stop
    assert torch.equal(whole.parts[0].indices, second.parts[0].indices)
    assert torch.equal(whole.parts[0].values, second.parts[0].values)
    assert torch.equal(whole.prototypes.displacement, second.prototypes.displacement)


def test_a_support_moves_within_its_budget(backbone, views, targets):
    state = start(backbone, views, targets, moves=Moves(every=1, share=0.5, rho=0.5))
    before = state.parts[0].indices.clone()
    run(state, backbone, views, targets)
    assert len(state.parts[0]) == targets.entries
    assert not torch.equal(before, state.parts[0].indices)


def test_the_average_takes_the_place_of_the_last_values(backbone, views, targets):
    state = start(backbone, views, targets, averaged=0.5)
    seen = []
    for _ in fit(state, backbone, views, PROMPTS, targets, SHORT, OFF, shots=4, seed=0, precision="float32"):
        seen.append(state.parts[0].values.detach().clone())
    weights = torch.tensor([0.5**4, 0.5**3, 0.5**2, 0.5])
    wanted = (torch.stack(seen) * weights[:, None]).sum(0) / weights.sum()
    torch.testing.assert_close(state.parts[0].values.data, wanted)


def test_training_stops_where_a_round_was_learned(backbone, views, targets):
    spec = TrainingSpec(steps=50, batch_size=12, learning_rate=1e-2)  # 24 views: a round is 2 steps
    whole = run(start(backbone, views, targets), backbone, views, targets, spec)
    level = sorted(record.loss for record in whole)[25]
    state = start(backbone, views, targets)
    records = run(state, backbone, views, targets, spec, safety=SafetySpec(stop_loss=level))
    assert 2 <= len(records) < 50 and state.stopped
    assert [record.loss for record in records] == [record.loss for record in whole[: len(records)]]
    recent = records[0].loss
    for record in records[1:]:
        recent += (record.loss - recent) / 2
    assert recent < level


def test_agreement_holds_features_and_answers_near_the_frozen_ones(backbone, views, targets):
    away = {}
    for weight in (0.0, 10.0):
        state = start(backbone, views, targets)
        before = state.prototypes(views.features).log_softmax(1)
        run(state, backbone, views, targets, TrainingSpec(steps=12, batch_size=24, learning_rate=1e-2),
            safety=SafetySpec(agreement=weight))  # fmt: skip
        with torch.no_grad(), attached(backbone.module, *state.parts):
            features = adapted_features(backbone, views)
            after = state.prototypes(features).log_softmax(1)
        divergence = torch.nn.functional.kl_div(after, before, log_target=True, reduction="batchmean")
        away[weight] = divergence.item(), (1 - (features * views.features).sum(1)).mean().item()
    assert away[10.0][0] < 0.5 * away[0.0][0] and away[10.0][1] < away[0.0][1]


def test_agreement_with_oneself_is_nothing_and_symmetric_kl_is_what_it_says():
    logits, other = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(logits, dim=1)
    assert agreement(Forward(rows, logits), rows, logits).item() == pytest.approx(0, abs=1e-6)
    assert agreement(Forward(-rows, logits), rows, logits).item() == pytest.approx(2)
    p, q = logits.softmax(1), other.softmax(1)
    divergence = (q * (q / p).log()).sum(1).mean().item()
    assert agreement(Forward(rows, logits), rows, other).item() == pytest.approx(divergence, rel=1e-5)
    wanted = ((p * (p / q).log()).sum(1).mean() + (q * (q / p).log()).sum(1).mean()) / 2
    torch.testing.assert_close(symmetric_kl(logits, other), wanted)


def test_a_closed_generator_leaves_the_backbone_as_it_was(backbone, views, targets):
    before = module_digest(backbone.module)
    records = fit(
        start(backbone, views, targets),
        backbone,
        views,
        PROMPTS,
        targets,
        SHORT,
        OFF,
        shots=4,
        seed=0,
        precision="float32",
    )
    next(records)
    assert module_digest(backbone.module) != before
    records.close()
    assert module_digest(backbone.module) == before


def test_a_pure_text_classifier_is_not_trained(backbone, views, targets):
    state = start(backbone, views, targets, train_head=False)
    run(state, backbone, views, targets)
    assert not state.prototypes.displacement.any() and state.prototypes.log_gain == 0
    assert state.parts[0].values.any()


def test_the_text_tower_learns_too(backbone, dataset):
    targets = plan(backbone.module, backbone.blocks, AdapterSpec(tower="text", layers="last-1", budget=200))
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
    chosen = state.parts[0].indices[state.parts[0].slices[name]].long()
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


@pytest.mark.parametrize(("steps", "rate"), [(12, 2.4e-4), (100, 2e-3), (500, 2e-3)])
def test_a_short_training_takes_smaller_steps(steps, rate):
    assert peak_rate("sparse_delta", TrainingSpec(steps=steps), 0) == pytest.approx(rate)
    assert peak_rate("sparse_delta", TrainingSpec(steps=steps, learning_rate=0.5), 100) == 0.5


@pytest.mark.parametrize(("pictures", "rate"), [(3, 2e-3), (50, 2e-3), (75, 3e-3), (100, 4e-3), (10_000, 4e-3)])
def test_values_of_a_lone_sparse_delta_take_larger_steps_where_pictures_are_many(pictures, rate):
    assert peak_rate("sparse_delta", TrainingSpec(), pictures) == pytest.approx(rate)
    assert peak_rate("low_rank", TrainingSpec(), pictures) == 3e-3


def test_step_sizes_rise_over_the_first_tenth_and_fall_from_then_on(backbone, views, targets):
    spec = TrainingSpec(steps=30, batch_size=8, learning_rate=1e-3)
    rates = [record.learning_rate for record in run(start(backbone, views, targets), backbone, views, targets, spec)]
    assert rates[:3] == sorted(rates[:3])
    assert rates[0] == pytest.approx(1e-3 / 3)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    at_once = TrainingSpec(steps=30, batch_size=8, learning_rate=1e-3, warmup_ratio=0.0)
    first = run(start(backbone, views, targets), backbone, views, targets, at_once)[0]
    assert first.learning_rate == pytest.approx(1e-3)
