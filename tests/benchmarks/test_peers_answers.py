import numpy as np
import torch

from benchmarks.peers.answers import answered, joined


def softmax(logits):
    return torch.tensor(logits).softmax(1).numpy()


def test_a_method_that_answers_by_texts_gets_its_own_softmax_over_all_classes():
    texts = np.random.default_rng(0).normal(size=(5, 7)) * 20
    assert np.allclose(joined(softmax(texts[:, :4]), texts), softmax(texts), rtol=1e-12, atol=1e-300)


def test_new_classes_keep_the_texts_probabilities_whatever_a_method_says_among_its_own():
    random = np.random.default_rng(1)
    texts, own = random.normal(size=(5, 7)), softmax(random.normal(size=(5, 4)) * 1000)
    whole = joined(own, texts)
    assert np.allclose(whole.sum(1), 1) and np.allclose(whole[:, 4:], softmax(texts)[:, 4:])
    assert np.allclose(whole[:, :4] / whole[:, :4].sum(1, keepdims=True), own)


def test_without_new_classes_nothing_changes():
    logits = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    found = answered(logits, logits * 5, trained=3, stored=12, started=1.0, learned=3.5)
    assert np.array_equal(found.probabilities, logits.double().softmax(1).numpy())
    assert (found.trained, found.stored, found.seconds, found.probabilities.dtype) == (3, 12, 2.5, np.float64)
