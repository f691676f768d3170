import pytest
import torch
from torch.nn import functional as F

from kusabi.adapters.prototypes import Prototypes


def unit(rows, seed=0, width=16):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize(("scale", "bias"), [(100.0, 0.0), (112.67, -16.5)])
@pytest.mark.parametrize("grad", [True, False])
def test_a_fresh_classifier_is_zero_shot_bitwise(scale, bias, grad):
    text, images = unit(5), unit(7, seed=1)
    with torch.set_grad_enabled(grad):
        logits = Prototypes(text, scale, bias)(images)
    assert torch.equal(logits, torch.tensor(scale) * (images @ text.T) + bias)


def test_other_texts_stand_in_for_the_stored_ones():
    fresh, other, images = Prototypes(unit(5), 50.0), unit(5, seed=2), unit(7, seed=1)
    assert torch.equal(fresh(images, other), Prototypes(other, 50.0)(images))
    fresh.displacement.data.fill_(0.1)
    torch.testing.assert_close(fresh(images, other), 50.0 * images @ (other + 0.1).T)


def test_placing_becomes_the_linear_map_asked_for_and_the_bias_stays_on_top():
    weights, offsets, images = 3 * unit(5, seed=3), torch.linspace(-1, 1, 5), unit(7, seed=1)
    for bias in (0.0, -10.0):
        classifier = Prototypes(unit(5), 100.0, bias)
        classifier.place(weights, offsets, 17.0)
        wanted = 17.0 * (images @ weights.T + offsets) + bias
        torch.testing.assert_close(classifier(images), wanted, rtol=1e-5, atol=1e-4)


def test_all_three_parts_learn_from_birth_and_the_text_does_not():
    classifier, images = Prototypes(unit(3), 10.0), unit(6, seed=1)
    F.cross_entropy(classifier(images), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    gradients = {name: parameter.grad for name, parameter in classifier.named_parameters()}
    assert gradients.keys() == {"displacement", "offset", "log_gain"}
    assert all(bool(gradient.any()) for gradient in gradients.values())
