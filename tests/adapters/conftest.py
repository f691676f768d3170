import hashlib

import pytest
import torch
from torch import nn

BLOCKS = {"vision": tuple(f"vision.{i}" for i in range(4)), "text": ("text.0", "text.1")}


def build_towers(seed=0, dtype=torch.float32):
    layers = [nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(6)]
    module = nn.ModuleDict({"vision": nn.Sequential(*layers[:4]), "text": nn.Sequential(*layers[4:])})
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data = (drawn if parameter.ndim > 1 else drawn + 1).to(dtype)
        if parameter.ndim > 1:
            parameter.data.view(-1)[::5] = -0.0
    return module.eval().requires_grad_(False)


def state_digest(module):
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Tiny tensors on busy cores: waiting for a second thread costs more than it brings.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def towers():
    # Builds a tiny frozen two-tower model with fused attention weights; every fifth entry of a matrix is -0.0.
    return build_towers


@pytest.fixture(scope="session")
def blocks():
    return BLOCKS


@pytest.fixture(scope="session")
def digest():
    # sha256 over every tensor of a module: names, types, strides and bits.
    return state_digest
