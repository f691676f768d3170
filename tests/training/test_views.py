import pytest
import torch

from kusabi.backbones.preprocessing import pixels
from kusabi.training import views as module
from kusabi.training.views import encode_views


@pytest.fixture(scope="module")
def views(backbone, dataset):
    return encode_views(backbone, dataset, dataset.train, 7, views=2, augment="safe", seed=0)


def test_the_first_view_is_the_picture_itself(views, backbone, dataset):
    shown = pixels([dataset.open(example) for example in dataset.train[:3]], backbone.preprocessing)
    with torch.no_grad():
        assert torch.allclose(views.features[:3], backbone.embed_images(shown), atol=1e-5)


def test_views_lie_one_round_after_another(views, dataset):
    assert views.labels.tolist() == [example.label for example in dataset.train] * 2
    assert views.pictures.tolist() == list(range(12)) * 2
    assert not torch.allclose(views.features[:12], views.features[12:], atol=1e-3)


def test_what_does_not_fit_into_memory_is_computed_again_and_equal(views, backbone, dataset, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    lean = encode_views(backbone, dataset, dataset.train, 7, views=2, augment="safe", seed=0)
    assert lean.states is None and torch.equal(lean.features, views.features)
    rows = list(range(16))
    assert torch.allclose(lean.batch(rows), views.batch(rows), atol=1e-6)


def test_a_frozen_vision_tower_needs_no_activations(backbone, dataset, views):
    frozen = encode_views(backbone, dataset, dataset.train, None, views=2, augment="safe", seed=0)
    assert frozen.states is None and torch.allclose(frozen.features, views.features, atol=1e-5)


def test_progress_reaches_the_end(backbone, dataset):
    told = []
    encode_views(
        backbone, dataset, dataset.train, None, views=1, augment="none", seed=0, progress=lambda *at: told.append(at)
    )
    assert told[-1] == (12, 12)


def test_reading_pictures_is_told_apart_from_the_frozen_model_in_every_block(backbone, dataset, monkeypatch):
    told = []
    opened, entered = type(dataset).open, module.enter
    monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(type(dataset), "open", lambda *of: [told.append("read"), opened(*of)][1])
    monkeypatch.setattr(module, "enter", lambda *of: [told.append("model"), entered(*of)][1])
    lean = encode_views(
        backbone, dataset, dataset.train, 7, views=2, augment="safe", seed=0,
        progress=lambda *at: told.append(at), decoded=lambda: told.append("decoded"),
    )  # fmt: skip
    events = ["decoded", "model", (16, 24), "decoded", "model", (24, 24)]
    assert [event for event in told if event != "read"] == events, "other threads read ahead"
    assert told[:16] == ["read"] * 16 and told.count("read") == 24
    told.clear()
    lean.reload([0])
    assert told == ["read", "model"], "what is read again while training is of the training"
