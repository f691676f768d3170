import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.weights import stored_scalar, weight_files
from kusabi.errors import BackboneError


def shard(folder):
    """Split model.safetensors in two, as big models are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def test_tensor_digests_are_of_the_tensor_that_bears_the_name_in_memory(loaded, kind):
    backbone = loaded(kind)
    kinds = {torch.float32: "F32", torch.int64: "I64"}
    for name, tensor in backbone.module.state_dict().items():
        digest = hashlib.sha256(json.dumps([kinds[tensor.dtype], list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        assert backbone.tensor_digests[name] == digest.hexdigest(), name


def test_some_files_name_their_tensors_otherwise_than_the_module(tiny, loaded):
    assert set(load_file(tiny("altclip") / "model.safetensors")) != set(loaded("altclip").tensor_digests)


def test_the_layout_of_older_files_is_followed(copied, loaded):
    folder = copied("clip_vision_model+bert")
    tensors = load_file(folder / "model.safetensors")
    old = {name.replace("vision_model.enc", "vision_model.vision_model.enc"): one for name, one in tensors.items()}
    old["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    backbone, today = load_backbone(folder), loaded("clip_vision_model+bert")
    names = {name for name, _ in backbone.module.named_parameters()}
    assert {name: backbone.tensor_digests[name] for name in names} == {n: today.tensor_digests[n] for n in names}
    assert backbone.digest != today.digest, "the whole digest is of the file, buffers too"


def test_shards_are_the_same_model_as_one_file(copied, loaded):
    folder = copied("siglip")
    shard(folder)
    backbone, whole = load_backbone(folder, dtype="bfloat16"), loaded("siglip", dtype="bfloat16")
    assert (backbone.digest, backbone.tensor_digests) == (whole.digest, whole.tensor_digests)
    assert (backbone.scale, backbone.bias) == (whole.scale, whole.bias)
    with torch.no_grad():
        assert torch.equal(backbone.embed_texts(["cat"]), whole.embed_texts(["cat"]))


def test_a_digest_differs_when_one_stored_tensor_does(copied, loaded):
    folder = copied("clip")
    tensors = load_file(folder / "model.safetensors")
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    tensors[name].view(-1)[3] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backbone, before = load_backbone(folder), loaded("clip")
    assert backbone.digest != before.digest
    assert [key for key in before.tensor_digests if before.tensor_digests[key] != backbone.tensor_digests[key]] == [
        name
    ]


def test_missing_shards_are_refused_naming_them(copied):
    folder = copied("siglip")
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"1 of 2 weight files are missing: model-00002-of-00002\.safetensors"):
        load_backbone(folder)


def test_an_index_may_not_point_out_of_its_folder(copied):
    folder = copied("siglip")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(BackboneError, match=r"missing: \.\./outside\.safetensors"):
        weight_files(folder)


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", None])
def test_pickled_or_no_weights_are_refused_with_the_remedy(copied, pickled):
    folder = copied("clip")
    (folder / "model.safetensors").unlink()
    if pickled:
        (folder / pickled).write_bytes(b"\x80\x04.")
    told = f"only {pickled}, which is refused: loading it can run code" if pickled else "no weights"
    with pytest.raises(
        BackboneError, match=rf"{re.escape(str(folder))}: no model\.safetensors here \({told}\); choose"
    ):
        load_backbone(folder)


def test_the_scale_is_read_as_stored_and_not_as_cast(copied):
    folder = copied("clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["logit_scale"] = torch.tensor(4.605170249938965)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(folder, dtype="bfloat16")
    assert backbone.scale == pytest.approx(100, rel=1e-6)
    assert backbone.module.state_dict()["logit_scale"].exp().item() != pytest.approx(100, rel=1e-3)


def test_a_scale_that_is_not_there_is_refused(tiny):
    with pytest.raises(BackboneError, match="no tensor 'warmth'"):
        stored_scalar(weight_files(tiny("clip")), "warmth")
