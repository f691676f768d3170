import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from kusabi.errors import DataError
from kusabi.evaluation.peers import SCALE_PRIOR, STRENGTH_PRIOR, class_mean, linear_probe, probe_strength


def features(classes, shots, views, *, width=24, noise=1.0, seed=0):
    """Unit features around one direction a class, on a shared offset as real encoders have; and their picture ids."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), shots)
    pictures = centres[labels] + noise * random.normal(size=(len(labels), width)) + 4
    rows = np.repeat(pictures, views, axis=0) + 0.2 * random.normal(size=(len(labels) * views, width))
    return (
        rows / np.linalg.norm(rows, axis=1, keepdims=True),
        np.repeat(labels, views),
        np.repeat(np.arange(len(labels)), views),
    )


@pytest.mark.parametrize("classes, shots, views", [(2, 1, 1), (3, 4, 2), (10, 8, 1)])
def test_both_peers_learn_an_easy_task_and_answer_with_probabilities(classes, shots, views):
    support, labels, groups = features(classes, shots, views, noise=0.3)
    query, truth, _ = features(classes, 20, 1, noise=0.3, seed=1)
    for answer in (
        class_mean(support, labels, query, classes, groups=groups),
        linear_probe(support, labels, groups, query, classes),
    ):
        assert answer.shape == (len(query), classes)
        assert np.allclose(answer.sum(axis=1), 1) and (answer >= 0).all()
        assert (answer.argmax(axis=1) == truth).mean() > 0.9


def test_the_probe_is_the_optimum_that_scikit_learn_finds():
    support, labels, groups = features(3, 12, 2)
    query, _, _ = features(3, 10, 1, seed=1)
    strength = probe_strength(support, labels, groups, 3)
    centre = support.mean(axis=0)
    size = np.sqrt(((support - centre) ** 2).sum(axis=1).mean())
    model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=5000, tol=1e-8)
    model.fit((support - centre) / size, labels)
    expected = model.predict_proba((query - centre) / size)
    assert np.abs(linear_probe(support, labels, groups, query, 3) - expected).max() < 2e-3


def test_noise_asks_for_a_stronger_penalty():
    strengths = [probe_strength(*features(3, 10, 1, noise=noise), 3) for noise in (0.3, 2.0, 8.0)]
    assert strengths[0] < strengths[1] <= strengths[2] and strengths[2] >= 0.1


def test_labels_without_meaning_ask_for_a_strong_penalty():
    support, labels, groups = features(2, 20, 2, noise=0.5)
    shuffled = np.random.default_rng(0).permutation(labels.reshape(-1, 2)[:, 0]).repeat(2)
    assert probe_strength(support, shuffled, groups, 2) >= 100 * probe_strength(support, labels, groups, 2)


def test_views_of_one_picture_never_sit_on_both_sides_of_a_fold():
    # Pure noise, but every picture has eight near copies: leaking folds would believe in it and drop the penalty.
    support, _, groups = features(1, 24, 8, noise=2.0)
    labels = (np.random.default_rng(5).permutation(24) % 2)[groups]
    assert probe_strength(support, labels, groups, 2) >= 0.1
    assert probe_strength(support, labels, np.arange(len(labels)), 2) < 0.01


def test_a_single_picture_of_a_class_uses_the_stated_priors():
    support, labels, groups = features(3, 1, 4)
    assert probe_strength(support, labels, groups, 3) == STRENGTH_PRIOR
    query, _, _ = features(3, 5, 1, seed=1)
    assert np.array_equal(
        class_mean(support, labels, query, 3, groups=groups), class_mean(support, labels, query, 3, SCALE_PRIOR)
    )


def test_class_mean_trusts_its_cosines_less_when_classes_overlap():
    def confidence(noise):
        support, labels, groups = features(3, 12, 1, noise=noise)
        return class_mean(support, labels, support, 3, groups=groups).max(axis=1).mean()

    assert confidence(0.2) > confidence(3.0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_support_rows_does_not_matter(seed):
    support, labels, groups = features(3, 5, 2, noise=2.0)
    query, _, _ = features(3, 5, 1, noise=2.0, seed=1)
    order = np.random.default_rng(seed).permutation(len(labels))
    same = linear_probe(support, labels, groups, query, 3)
    assert np.allclose(linear_probe(support[order], labels[order], groups[order], query, 3), same, atol=1e-3)


def test_identical_features_give_even_odds_instead_of_a_crash():
    support = np.tile([1.0, 0.0], (4, 1))
    answer = linear_probe(support, [0, 0, 1, 1], np.arange(4), support[:1], 2)
    assert np.allclose(answer, 0.5)
    assert np.allclose(class_mean(support, [0, 0, 1, 1], support[:1], 2), 0.5)


def test_what_cannot_be_learned_from_is_refused():
    support, labels, groups = features(2, 3, 1)
    with pytest.raises(DataError, match=r"classes \[2\] have no support"):
        linear_probe(support, labels, groups, support, 3)
    with pytest.raises(DataError, match="equal width"):
        class_mean(support, labels, support[:, :5], 2)
    with pytest.raises(DataError, match="equal in number"):
        linear_probe(support, labels, groups[1:], support, 2)
    support[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        class_mean(support, labels, support, 2)
