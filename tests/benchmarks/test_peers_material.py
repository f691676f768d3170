import torch

from benchmarks.peers.material import Pixels, projected, projection
from kusabi.training.texts import class_texts


def test_rows_of_views_and_of_their_pixels_are_the_same_pictures(material):
    rows = [0, 5, 13, 23]
    with torch.no_grad():
        assert torch.allclose(
            material.backbone.embed_images(material.view_pixels.batch(rows)), material.views.features[rows], atol=1e-6
        )
    assert material.pictures == 12 and material.views.labels[:12].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_query_is_embedded_in_its_order_and_texts_of_new_classes_come_last(material):
    with torch.no_grad():
        assert torch.allclose(
            material.backbone.embed_images(material.query_pixels.batch([7])), material.query[7:8], atol=1e-6
        )
        assert torch.equal(class_texts(material.backbone, material.all_prompts), material.text)
    assert (material.classes, len(material.text)) == (3, 4)


def test_what_enters_the_last_linear_map_was_caught_and_gives_the_features(material):
    layer = projection(material.backbone.module)
    for pooled, features in zip(material.pooled, (material.views.features, material.query), strict=True):
        assert torch.allclose(projected(pooled, layer.weight, layer.bias), features, atol=1e-6)
    assert not layer._forward_pre_hooks


def test_a_tower_without_such_a_map_has_nothing_to_catch(gathered):
    assert gathered("siglip").pooled is None


def test_pixels_are_read_once_in_blocks_of_a_frozen_forward(monkeypatch):
    read = []

    def one(row):
        read.append(row)
        return torch.full((3, 2, 2), float(row))

    pixels = Pixels(18, one)
    assert [len(block) for block in pixels.blocks()] == [16, 2]
    assert pixels.batch([17, 0])[:, 0, 0, 0].tolist() == [17, 0] and read == list(range(18))
    monkeypatch.setattr("benchmarks.peers.material.KEPT_BYTES", 0)
    scarce = Pixels(2, one)
    scarce.batch([0])
    scarce.batch([0])
    assert read[18:] == [0, 0]
