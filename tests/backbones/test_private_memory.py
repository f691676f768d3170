import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.private_memory import own_memory


def test_mapped_weights_get_memory_of_their_own_and_keep_their_bits(tmp_path):
    linear = nn.Linear(3, 4)
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    mapped = nn.Linear(3, 4)
    for name, tensor in load_file(tmp_path / "linear.safetensors").items():
        mapped.get_parameter(name).data = tensor
    own_memory(mapped)
    for name, parameter in mapped.named_parameters():
        assert torch.equal(parameter, linear.get_parameter(name)) and parameter.untyped_storage().resizable()


def test_what_has_its_own_memory_stays_where_it_is():
    linear = nn.Linear(3, 4)
    places = [parameter.data_ptr() for parameter in linear.parameters()]
    assert [parameter.data_ptr() for parameter in own_memory(linear).parameters()] == places


def test_a_loaded_backbone_has_no_mapped_weights(tiny):
    module = load_backbone(tiny("clip")).module
    assert all(tensor.untyped_storage().resizable() for tensor in (*module.parameters(), *module.buffers()))
