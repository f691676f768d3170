import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from kusabi.adapters import low_rank
from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.merged_folder import export_merged
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, CheckpointError

SIDE = 16
CARD = {"classes": ["x", "y"], "prompts": [["x"], ["y"]], "backbone": {"source": "owner/tiny"}}
KERNEL, UP = "vision_model.embeddings.patch_embedding.weight", "vision_model.encoder.layers.1.mlp.fc1.weight"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj.weight"


def save_clip(folder, dtype=torch.float32, shard="1GB"):
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision, text = {**sizes, "image_size": SIDE, "patch_size": 8}, {**sizes, "vocab_size": 20}
    text |= {"max_position_embeddings": 6, "eos_token_id": 19, "bos_token_id": 18, "pad_token_id": 1}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)).to(dtype)
    logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size=shard)
    model = CLIPModel.from_pretrained(folder)
    logging.enable_progress_bar()
    for name, content in {
        "tokenizer.json": "{}", "merges.txt": "a b", "spiece.model": "m", "preprocessor_config.json": "{}",
        "LICENSE": "free", "README.md": "# tiny", "adapter_config.json": "{}", "pytorch_model.bin": "pickle",
        "pytorch_model.bin.index.json": "{}", "notes.html": "x", "chat_template.jinja": "t",
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    (folder / "onnx").mkdir()
    return model.eval().requires_grad_(False)


def delta_of(*names):
    delta = SparseDelta({name: torch.arange(0, 900, 11) for name in names})
    delta.values.data = torch.randn(len(delta), generator=torch.Generator().manual_seed(1))
    delta.values.data[::9] = 0
    return delta


def export(folder, module, delta, source, names=None, dtype=None, parts=None):
    prototypes = Prototypes(F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(2)), dim=-1), 9.0)
    prototypes.displacement.data.fill_(0.1)
    files = sorted(source.glob("*.safetensors"))
    export_merged(folder, module, Adapter(parts or (delta,), {}, CARD), prototypes, source, files, names or {}, dtype)
    return prototypes


@pytest.mark.parametrize(
    ("dtype", "shard"),
    [(torch.float32, "1GB"), (torch.float32, "40KB"), (torch.bfloat16, "1GB"), (torch.float16, "1GB")],
)
def test_the_readme_of_the_folder_gives_the_very_embeddings_and_logits(tmp_path, dtype, shard):
    module, delta = save_clip(tmp_path / "tiny", dtype, shard), delta_of(UP, TEXT, KERNEL)
    pixels, tokens = torch.randn(3, 3, SIDE, SIDE).to(dtype), torch.tensor([[18, 3, 4, 19], [18, 7, 19, 1]])
    frozen = module.get_image_features(pixel_values=pixels).pooler_output
    with attached(module, delta):  # what the files hold counts, not what the module holds
        prototypes = export(tmp_path / "out", module, delta, tmp_path / "tiny")
        images = module.get_image_features(pixel_values=pixels).pooler_output
        texts = module.get_text_features(input_ids=tokens).pooler_output
    readme = (tmp_path / "out" / "README.md").read_text("utf-8").replace("this folder", str(tmp_path / "out"))
    scope = {"pixel_values": pixels}
    exec("".join(block.split("```")[0] for block in readme.split("```python\n")[1:]), scope)
    assert scope["model"].dtype == dtype and not torch.equal(frozen, images)
    assert torch.equal(scope["output"], images)
    assert torch.equal(scope["model"].get_text_features(input_ids=tokens).pooler_output, texts)
    assert torch.equal(scope["logits"], prototypes(F.normalize(images.float(), dim=-1)))
    shards = len(list((tmp_path / "out").glob("model*.safetensors")))
    assert shards == 1 if shard == "1GB" else shards > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_two_deltas_on_one_weight_are_exported_as_they_are_attached_bitwise(tmp_path, dtype):
    module = save_clip(tmp_path / "tiny", dtype)
    names = (UP, TEXT)
    dense = low_rank.fresh({name: module.get_parameter(name).shape for name in names}, 2, 4.0, seed=3)
    dense.values.data += torch.randn(len(dense), generator=torch.Generator().manual_seed(4)) * 0.1
    parts = (delta_of(*names), dense)
    export(tmp_path / "out", module, None, tmp_path / "tiny", parts=parts)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    with attached(module, *parts):
        assert all(torch.equal(merged[name], module.get_parameter(name)) for name in names)


def test_a_half_precision_backbone_that_was_resident_in_fp32_is_equal_when_written_in_fp32(tmp_path):
    save_clip(tmp_path / "tiny", torch.bfloat16)
    (tmp_path / "tiny" / "adapter_config.json").unlink()
    module = CLIPModel.from_pretrained(tmp_path / "tiny", dtype=torch.float32).eval().requires_grad_(False)
    delta, pixels = delta_of(UP, TEXT), torch.randn(3, 3, SIDE, SIDE)
    with attached(module, delta):
        wanted = module.get_image_features(pixel_values=pixels).pooler_output
    for name, dtype in (("wide", torch.float32), ("narrow", None)):
        export(tmp_path / name, module, delta, tmp_path / "tiny", dtype=dtype)
    wide, narrow = (CLIPModel.from_pretrained(tmp_path / name).eval() for name in ("wide", "narrow"))
    assert wide.dtype == torch.float32 and narrow.dtype == torch.bfloat16
    assert torch.equal(wide.get_image_features(pixel_values=pixels).pooler_output, wanted)
    rounded = narrow.float().get_image_features(pixel_values=pixels).pooler_output
    assert not torch.equal(rounded, wanted) and torch.allclose(rounded, wanted, atol=0.1)


def test_the_files_of_the_model_come_along_and_nothing_else(tmp_path):
    module = save_clip(tmp_path / "tiny", shard="40KB")
    export(tmp_path / "out", module, delta_of(UP), tmp_path / "tiny")
    shards = {path.name for path in (tmp_path / "tiny").glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == shards | {
        "config.json", "tokenizer.json", "merges.txt", "spiece.model", "preprocessor_config.json", "LICENSE",
        "chat_template.jinja", "model.safetensors.index.json", "BACKBONE.md", "README.md", "kusabi.json",
        "prototypes.safetensors",
    }  # fmt: skip
    assert (tmp_path / "out" / "BACKBONE.md").read_text() == "# tiny"
    changed = []
    for name in shards:
        before, after = load_file(tmp_path / "tiny" / name), load_file(tmp_path / "out" / name)
        assert before.keys() == after.keys()
        changed += [key for key in before if not torch.equal(before[key], after[key])]
        with safe_open(tmp_path / "tiny" / name, "pt") as old, safe_open(tmp_path / "out" / name, "pt") as fresh:
            assert old.metadata() == fresh.metadata()
    assert changed == [UP]


def test_a_single_file_wins_over_a_stale_index(tmp_path):
    module = save_clip(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors.index.json").write_text("{}")
    export(tmp_path / "out", module, delta_of(UP), tmp_path / "tiny")
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_tensors_that_have_another_name_in_the_files_are_found(tmp_path):
    module = save_clip(tmp_path / "tiny")
    path = tmp_path / "tiny" / "model.safetensors"
    tensors = load_file(path)
    original = tensors[UP].clone()
    tensors["old.name"] = tensors.pop(UP)
    save_file(tensors, path, {"format": "pt"})
    export(tmp_path / "out", module, delta_of(UP), tmp_path / "tiny", {"old.name": UP})
    merged = load_file(tmp_path / "out" / "model.safetensors")["old.name"]
    wanted = original.clone()
    wanted.view(-1)[torch.arange(0, 900, 11)] += delta_of(UP).values.data
    assert torch.equal(merged, wanted)


def test_targets_that_are_stored_otherwise_are_all_named_and_nothing_is_written(tmp_path):
    module = save_clip(tmp_path / "tiny")
    path = tmp_path / "tiny" / "model.safetensors"
    tensors = load_file(path)
    tensors["half"] = tensors.pop(TEXT)[:16]
    tensors["other half"] = tensors["half"].clone()
    tensors[KERNEL] = tensors[KERNEL].to(torch.int8)
    tensors[UP] = tensors[UP].T.contiguous()
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(AdapterError) as refusal:
        export(
            tmp_path / "out", module, delta_of(TEXT, KERNEL, UP), tmp_path / "tiny", {"half": TEXT, "other half": TEXT}
        )
    for complaint in (
        f"{TEXT} is stored in 2 tensors",
        f"{KERNEL} [32, 3, 8, 8] is stored as I8 [32, 3, 8, 8]",
        f"{UP} [40, 32] is stored as F32 [32, 40]",
    ):
        assert complaint in str(refusal.value)
    with pytest.raises(AdapterError, match="the model has no such weight"):
        export(tmp_path / "out", module, delta_of("absent"), tmp_path / "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_file_of_the_backbone_leaves_nothing_behind(tmp_path, damage):
    module = save_clip(tmp_path / "tiny", shard="40KB")
    last = sorted((tmp_path / "tiny").glob("*.safetensors"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2]) if damage == "cut" else last.rename(tmp_path / "tiny" / "elsewhere")
    files = sorted((tmp_path / "tiny").glob("*.safetensors")) + ([last] if damage == "gone" else [])
    adapter = Adapter((delta_of(UP),), {}, CARD)
    with pytest.raises(CheckpointError, match=f"{last.name}: damaged or missing"):
        export_merged(tmp_path / "out", module, adapter, Prototypes(torch.eye(2), 1.0), tmp_path / "tiny", files, {})
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_failure_halfway_leaves_nothing_behind(tmp_path):
    module = save_clip(tmp_path / "tiny")
    adapter = Adapter((delta_of(UP),), {}, {**CARD, "classes": ["only one"]})
    files = [tmp_path / "tiny" / "model.safetensors"]
    with pytest.raises(AdapterError, match="2 classes"):  # found after the weights were written
        export_merged(tmp_path / "out", module, adapter, Prototypes(torch.eye(2), 1.0), tmp_path / "tiny", files, {})
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["model_type"] == "clip"
