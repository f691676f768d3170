import hashlib
import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from kusabi.backbones.digest import module_digest, stored_digests, whole_digest
from kusabi.errors import BackboneError

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def tensors():
    return {
        "b.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "a": torch.tensor([1.5, -0.0]),
        "scale": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "steps": torch.tensor(7),
    }


def expected(tensor):
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(json.dumps([NAMES[tensor.dtype], list(tensor.shape)]).encode() + content).hexdigest()


def test_every_tensor_is_digested_as_stored(tmp_path):
    save_file(tensors(), tmp_path / "one.safetensors", metadata={"format": "pt"})
    assert stored_digests([tmp_path / "one.safetensors"]) == {n: expected(t) for n, t in tensors().items()}


def test_shards_and_one_file_have_the_same_digests(tmp_path):
    save_file(tensors(), tmp_path / "one.safetensors")
    parts = list(tensors().items())
    save_file(dict(parts[:2]), tmp_path / "1.safetensors")
    save_file(dict(parts[2:]), tmp_path / "2.safetensors")
    whole = stored_digests([tmp_path / "one.safetensors"])
    shards = stored_digests([tmp_path / "2.safetensors", tmp_path / "1.safetensors"])
    assert whole == shards and whole_digest(whole) == whole_digest(shards)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["b.weight", "a", "steps"]), st.integers(0, 3), st.integers(0, 7))
def test_one_changed_bit_changes_the_digest_of_its_tensor_and_of_the_whole(tmp_path_factory, name, byte, bit):
    folder = tmp_path_factory.mktemp("bits")
    save_file(tensors(), folder / "before.safetensors")
    changed = tensors()
    changed[name].reshape(-1).view(torch.uint8)[byte] ^= 1 << bit
    save_file(changed, folder / "after.safetensors")
    before, after = (stored_digests([folder / f"{when}.safetensors"]) for when in ("before", "after"))
    assert [key for key in before if before[key] != after[key]] == [name]
    assert whole_digest(before) != whole_digest(after)


def test_shape_type_and_name_count_too(tmp_path):
    same = {"x": torch.zeros(2, 3), "y": torch.zeros(3, 2), "z": torch.zeros(6, dtype=torch.int32)}
    save_file(same, tmp_path / "same.safetensors")
    digests = stored_digests([tmp_path / "same.safetensors"])
    assert len(set(digests.values())) == 3
    assert whole_digest({"x": "1", "y": "2"}) != whole_digest({"x": "2", "y": "1"})
    assert whole_digest({"x": "1", "y": "2"}) == whole_digest({"y": "2", "x": "1"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n",
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 59) + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}',
        struct.pack("<Q", 62) + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}' + b"\0" * 20,
        struct.pack("<Q", 8) + b'{"a": 1}',
    ],
)
def test_a_damaged_file_is_refused_naming_it(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BackboneError, match=r"model\.safetensors: damaged or truncated"):
        stored_digests([tmp_path / "model.safetensors"])


def test_a_missing_file_is_refused_naming_it(tmp_path):
    with pytest.raises(BackboneError, match=r"gone\.safetensors: cannot be read"):
        stored_digests([tmp_path / "gone.safetensors"])


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [2.0, 3.0]]).T)
        self.register_buffer("saved", torch.arange(3))
        self.register_buffer("unsaved", torch.ones(2, dtype=torch.bfloat16), persistent=False)


@pytest.mark.parametrize("change", ["weight", "saved", "unsaved", "sign of zero"])
def test_the_digest_in_memory_sees_every_change(change):
    part = Part()
    before = module_digest(part)
    assert module_digest(part) == before == module_digest(Part())
    with torch.no_grad():
        match change:
            case "weight":
                part.weight[0, 1] += 1
            case "sign of zero":
                part.weight[1, 0] = -0.0
            case _:
                getattr(part, change)[0] += 1
    assert module_digest(part) != before


def test_the_digest_in_memory_does_not_care_how_a_tensor_lies():
    part, other = Part(), Part()
    other.weight.data = other.weight.data.contiguous()
    assert part.weight.stride() != other.weight.stride()
    assert module_digest(part) == module_digest(other)
