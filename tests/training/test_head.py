import numpy as np
import pytest

from kusabi.training.anchors import anchors, means_share, most_of_pictures, text_pictures
from kusabi.training.head import SCALE_PRIOR, STRENGTH_PRIOR, fit_head, logistic_fit, refit_like


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def clusters(shots, *, classes=4, width=16, spread=0.3, seed=0):
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(classes, width)))
    labels = np.repeat(np.arange(classes), shots)
    rows = unit(centres[labels] + spread * unit(random.normal(size=(len(labels), width))))
    return rows, labels, np.arange(len(labels)), centres


def accuracy(head, rows, labels):
    return ((rows @ head.weights.T + head.offsets).argmax(axis=1) == labels).mean()


def test_without_a_share_of_pictures_the_anchors_are_the_texts():
    rows, labels, _, _ = clusters(4)
    text = unit(np.random.default_rng(1).normal(size=(4, 16)))
    assert np.allclose(anchors(rows, labels, text, 0.0), text)
    assert np.allclose(np.linalg.norm(anchors(rows, labels, text, 0.5), axis=1), 1)


def test_a_class_without_a_picture_keeps_its_text():
    rows, labels, _, _ = clusters(4)
    text = unit(np.random.default_rng(1).normal(size=(5, 16)))
    assert np.array_equal(anchors(rows, labels, text, 0.7)[4], text[4])


def test_names_that_mean_nothing_are_left_for_pictures():
    rows, labels, pictures, _ = clusters(8)
    wrong = np.roll(unit(np.random.default_rng(1).normal(size=(4, 16))), 1, axis=0)
    head = fit_head(rows, labels, pictures, wrong)
    fresh, truth, _, _ = clusters(50, seed=0)
    assert accuracy(head, fresh, truth) > 0.95
    assert head.share > 0 or head.scale == 0


def test_names_that_mean_everything_are_kept():
    rows, labels, pictures, centres = clusters(2, spread=1.6)
    fresh, truth, _, _ = clusters(100, spread=1.6)
    head = fit_head(rows, labels, pictures, centres)
    blind = fit_head(rows, labels, pictures, unit(np.random.default_rng(5).normal(size=centres.shape)))
    assert accuracy(head, fresh, truth) > accuracy(blind, fresh, truth) + 0.05


def test_a_huge_strength_is_the_anchor_itself():
    rows, labels, _, centres = clusters(4)
    anchor = 20 * anchors(rows, labels, centres, 0.5)
    assert np.allclose(logistic_fit(rows, labels, anchor, 1e9)[0], anchor, atol=1e-4)


def test_with_one_picture_a_class_the_text_is_trusted_as_far_as_it_tells_them_apart():
    rows, labels, pictures, centres = clusters(1)
    wrong = np.roll(centres, 1, axis=0)
    assert fit_head(rows, labels, pictures, wrong).share == pytest.approx(1 / 2, abs=0.02)
    assert fit_head(rows, labels, pictures, centres).share < 0.2
    views = np.concatenate([rows, rows]), np.concatenate([labels, labels]), np.concatenate([pictures, pictures])
    assert text_pictures(*views, centres) == text_pictures(rows, labels, pictures, centres)


def test_the_plain_probe_counts_as_little_as_the_pictures_where_one_a_class_is_all_there_is():
    rows, labels, pictures, centres = clusters(1)
    told = means_share(rows, labels, pictures, centres)
    assert told == 1 / (1 + text_pictures(rows, labels, pictures, centres) ** 4) < 0.05
    head = fit_head(rows, labels, pictures, centres)
    assert (head.share, head.probe_share) == (told, told)
    assert fit_head(rows, labels, pictures, centres, share=1.0).probe_share == told
    assert fit_head(rows, labels, pictures, np.roll(centres, 1, axis=0)).probe_share == pytest.approx(0.5, abs=0.02)
    anchored, probe = (
        logistic_fit(rows, labels, scale * anchors(rows, labels, centres, told), 1e-2)[0] for scale in (32.0, 0.0)
    )
    assert np.allclose(head.weights, (1 - told) * anchored + told * probe)
    again = refit_like(head, rows, labels, centres)
    assert np.array_equal(again.weights, head.weights) and again.probe_share == told
    assert fit_head(*clusters(4)[:3], np.roll(centres, 1, axis=0)).probe_share == 0.5


def test_few_pictures_choose_no_more_than_their_number_beside_what_a_telling_text_counts_as():
    rows, labels, pictures, centres = clusters(3)
    most = most_of_pictures(rows, labels, pictures, centres)
    assert most == 3 / text_pictures(rows, labels, pictures, centres) ** 4 < 0.2
    head = fit_head(rows, labels, pictures, centres)
    assert head.share <= most and head.probe_share == most
    fixed = fit_head(rows, labels, pictures, centres, share=1.0)
    assert (fixed.share, fixed.probe_share) == (1.0, most)
    wrong = np.roll(centres, 1, axis=0)
    assert most_of_pictures(rows, labels, pictures, wrong) == 1 and fit_head(rows, labels, pictures, wrong).share > most


def test_a_text_that_explains_everything_counts_as_one_picture_more_than_there_are():
    rows = np.eye(3)
    labels = np.arange(3)
    assert text_pictures(rows, labels, labels, 1e3 * rows) == pytest.approx(4)


def test_of_a_single_class_a_text_tells_nothing():
    rows, labels, pictures, centres = clusters(3, classes=1)
    assert text_pictures(rows, labels, pictures, centres) == 1 == most_of_pictures(rows, labels, pictures, centres)
    assert np.isfinite(fit_head(rows, labels, pictures, centres).weights).all()


def test_a_fixed_share_is_taken():
    rows, labels, pictures, centres = clusters(4)
    assert fit_head(rows, labels, pictures, centres, share=0.25).share == 0.25


def test_the_optimum_has_no_slope():
    rows, labels, _, centres = clusters(6)
    anchor = 8.0 * anchors(rows, labels, centres, 0.5)
    fitted, offset = logistic_fit(rows, labels, anchor, 0.1)

    def objective(weights, offsets):
        logits = rows @ weights.T + offsets
        log_sum = np.log(np.exp(logits).sum(axis=1))
        moved = weights - anchor
        size = np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
        return (log_sum - logits[np.arange(len(rows)), labels]).mean() + 0.05 * (moved**2).sum() * size**2

    lowest = objective(fitted, offset)
    random = np.random.default_rng(0)
    for _ in range(5):
        aside = fitted + 0.3 * random.normal(size=fitted.shape)
        assert objective(aside, offset) > lowest


def test_the_choices_of_one_head_on_its_own_features_are_that_head():
    rows, labels, pictures, centres = clusters(4)
    head = fit_head(rows, labels, pictures, centres)
    again = refit_like(head, rows, labels, centres)
    assert np.array_equal(again.weights, head.weights) and np.array_equal(again.offsets, head.offsets)


def test_a_class_with_one_picture_leaves_the_choices_to_the_others():
    rows, labels, pictures, _ = clusters(12, classes=6, spread=0.8)
    nothing = unit(np.random.default_rng(1).normal(size=(6, 16)))
    kept = (labels != 5) | (np.cumsum(labels == 5) == 1)
    head = fit_head(rows[kept], labels[kept], pictures[kept], nothing)
    others = fit_head(rows[labels != 5], labels[labels != 5], pictures[labels != 5], nothing[:5])
    assert head.probe_share == 0.5 and head.strength != STRENGTH_PRIOR and head.share == others.share > 0.5
    fresh, truth, _, _ = clusters(100, classes=6, spread=0.8)
    told = truth != 5
    assert accuracy(head, fresh[told], truth[told]) > accuracy(others, fresh[told], truth[told]) - 0.05


def test_where_one_class_alone_has_several_pictures_nothing_is_held_out():
    rows, labels, pictures, centres = clusters(6)
    kept = (labels == 0) | (np.arange(len(labels)) % 6 == 0)
    head = fit_head(rows[kept], labels[kept], pictures[kept], centres)
    assert (head.scale, head.strength) == (SCALE_PRIOR, STRENGTH_PRIOR)
