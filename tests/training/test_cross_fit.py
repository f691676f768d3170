import numpy as np
import pytest
import torch

from kusabi.training.cross_fit import SHARPNESS, cross_fit, picture_folds
from kusabi.training.head import fit_head

SHOTS, CLASSES, SIZE = 4, 3, 6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def support():
    """Two views of every picture: features, labels, pictures."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    rows = unit(np.eye(SIZE)[labels] + 0.5 * random.normal(size=(len(labels), SIZE)))
    again = unit(rows + 0.05 * random.normal(size=rows.shape))
    return np.vstack([rows, again]), np.tile(labels, 2), np.tile(np.arange(len(labels)), 2)


@pytest.fixture(scope="module")
def text():
    return torch.from_numpy(unit(np.random.default_rng(1).normal(size=(CLASSES, SIZE))))


@pytest.fixture
def head(support, text):
    return fit_head(*support, text.numpy(), share=0.75)


def answers(crossed, features, rows=None, text=None):
    rows = list(range(len(features))) if rows is None else rows
    return crossed(torch.from_numpy(features[rows]), text, rows)


@pytest.mark.parametrize("folds", [2, 4, 8])
def test_every_picture_is_answered_by_class_means_of_the_others(folds, support, text, head):
    features, labels, pictures = support
    found = answers(cross_fit(head, *support, text, folds), features).numpy()
    dealt = pictures % SHOTS % min(folds, SHOTS)
    for picture in np.unique(pictures):
        own = pictures == picture
        others = dealt != dealt[own][0]
        means = np.stack([unit(features[others & (labels == label)].sum(0)) for label in range(CLASSES)])
        anchors = unit(0.25 * text.numpy() + 0.75 * means)
        np.testing.assert_allclose(found[own], SHARPNESS * head.scale * features[own] @ anchors.T, rtol=1e-4, atol=1e-5)


def test_a_picture_does_not_reach_the_answer_to_itself(support, text, head):
    features, labels, pictures = support
    changed = features.copy()
    changed[pictures == 0] = -changed[pictures == 0]
    first, second = (answers(cross_fit(head, of, labels, pictures, text, 4), features) for of in (features, changed))
    own = torch.from_numpy(pictures == 0)
    assert torch.equal(first[own], second[own]) and not torch.equal(first[~own], second[~own])


def test_rows_are_answered_alike_alone_and_among_others(support, text, head):
    crossed = cross_fit(head, *support, text, 4)
    every = answers(crossed, support[0])
    torch.testing.assert_close(answers(crossed, support[0], [5, 17, 2]), every[[5, 17, 2]])


def test_a_picture_that_is_alone_in_its_class_is_answered_by_the_texts_which_have_not_seen_it(support, text, head):
    features, labels, pictures = support
    kept = ~np.isin(pictures, [9, 10, 11])  # of the last class picture 8 remains
    crossed = cross_fit(head, features[kept], labels[kept], pictures[kept], text, 4)
    alone = torch.from_numpy(pictures[kept] == 8)
    assert not crossed.fold[alone].any() and crossed.fold[~alone].all()
    found = answers(crossed, features[kept])[alone].numpy()
    wanted = crossed.scale * features[kept][alone.numpy()] @ text.numpy().T
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_class_without_pictures_is_its_text(support, text, head):
    features, labels, pictures = support
    kept = labels < 2
    crossed = cross_fit(head, features[kept], labels[kept], pictures[kept], text, 4)
    wanted = crossed.scale * features[kept] @ text.numpy()[2]
    np.testing.assert_allclose(answers(crossed, features[kept])[:, 2].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_adapted_texts_stand_in_for_the_stored_ones_and_learn(support, text, head):
    crossed = cross_fit(head, *support, text, 4)
    moved = (text.float() + 0.1).requires_grad_()
    found = answers(crossed, support[0], text=moved)
    assert not torch.allclose(found, answers(crossed, support[0]))
    found.sum().backward()
    assert moved.grad is not None and moved.grad.any()


def test_pictures_of_a_class_are_dealt_out_in_turn():
    labels = np.array([0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 1, 2])
    pictures = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5])
    assert picture_folds(labels, pictures, 2).tolist() == [1, 2, 1, 1, 2, 0] * 2
    assert picture_folds(labels, pictures, 8).tolist() == [1, 2, 3, 1, 2, 0] * 2
