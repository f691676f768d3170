import pytest
import torch
from pretraining.vision import LAYERS, Student, vision_config


@pytest.fixture(scope="module")
def student():
    from transformers import Dinov2Model

    torch.manual_seed(0)
    return Student(Dinov2Model(vision_config()), attributes=3).eval()


@torch.no_grad()
def test_computing_the_class_token_alone_changes_nothing(student):
    pixels = torch.randn(2, 3, 84, 84)
    output = student.tower(pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(student(pixels), student.head(output.pooler_output))
    embeddings, spots = student.with_spots(pixels)
    torch.testing.assert_close(embeddings, student.head(output.pooler_output))
    below = output.hidden_states[LAYERS - 2]
    torch.testing.assert_close(spots, student.spots(below[:, 1:]).squeeze(-1))


@torch.no_grad()
def test_the_busiest_patches_are_kept_where_they_are(student):
    pixels = torch.zeros(1, 3, 84, 84)
    busy = torch.zeros(6, 6, dtype=torch.bool)
    busy[1:4, 2:5] = True
    pixels += torch.randn_like(pixels) * busy.repeat_interleave(14, 0).repeat_interleave(14, 1)
    whole = student.tower.embeddings(pixels)
    rows = torch.cat([torch.tensor([0]), 1 + busy.flatten().nonzero().flatten()])
    torch.testing.assert_close(student(pixels, keep=9), student._top(student._lower(whole[:, rows])))
    torch.testing.assert_close(student(pixels, keep=36), student(pixels))
    assert not torch.allclose(student(pixels, keep=9), student(pixels))
