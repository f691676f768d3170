import pytest
import torch

from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.prefix import carry, enter, finish


@pytest.mark.parametrize("kind", ["clip", "siglip2", "align", "dinov2+bert"])
def test_states_carried_up_are_those_that_enter_there_bitwise_and_the_tower_is_whole_again(tiny, kind):
    backbone = load_backbone(str(tiny(kind)))
    side = backbone.preprocessing.size
    shown = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    before = backbone.embed_images(shown)
    states = enter(backbone, shown, 0)
    top = len(backbone.blocks["vision"]) - 1
    for layer in range(1, top + 1):
        carried = carry(backbone, states, layer - 1, layer)
        assert torch.equal(carried, enter(backbone, shown, layer)) and not carried.requires_grad
        assert not torch.equal(carried, states) or carried.shape != states.shape
        states = carried
    assert torch.equal(carry(backbone, enter(backbone, shown, 0), 0, top), states)
    assert torch.equal(finish(backbone, states, top), before)
    assert torch.equal(backbone.embed_images(shown), before)
