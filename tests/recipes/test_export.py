import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from kusabi.adapters import onnx_folder
from kusabi.adapters.attach import attached
from kusabi.errors import AdapterError, SpecError
from kusabi.recipes.adapt import adapt
from kusabi.recipes.export import FORMS, export
from kusabi.recipes.judge import classifier
from kusabi.recipes.stored_adapter import open_adapter
from kusabi.spec_file import build


@pytest.fixture
def run(tiny, tiles, tmp_path):
    torch.set_num_threads(1)
    spec = build(
        {
            "backbone": {"backbone": str(tiny("clip"))},
            "adapter": {"density": 0.05, "projections": ["mlp.fc1.*"]},
            "data": {"shots": 2, "views": 2},
            "training": {"steps": 2, "learning_rate": 1e-2},
        }
    )
    adapt(str(tiles(train=3, test=4)), spec, tmp_path / "run")
    return tmp_path / "run"


@torch.no_grad()
def test_a_merged_folder_loads_in_transformers_and_answers_alike(run, tmp_path):
    from transformers import AutoModel

    stored = open_adapter(run)
    pixels = torch.randn(2, 3, 24, 24)
    head = classifier(stored.backbone, stored.adapter)
    with attached(stored.backbone.module, stored.adapter.delta):
        wanted = head(stored.backbone.embed_images(pixels))
    folder = export(run, tmp_path / "merged", "merged")
    model = AutoModel.from_pretrained(folder).eval()
    head = load_file(folder / "prototypes.safetensors")
    images = torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    logits = head["scale"] * (images @ head["directions"].T + head["offset"]) + head["bias"]
    assert torch.equal(logits, wanted)
    assert json.loads((folder / "kusabi.json").read_text())["classes"] == ["A1", "B2", "C3"]


@pytest.fixture
def low_rank_run(tiny, tiles, tmp_path):
    torch.set_num_threads(1)
    fields = {
        "backbone": {"backbone": str(tiny("clip"))},
        "adapter": {"kind": "low_rank"},
        "low_rank": {"rank": 2},
        "data": {"shots": 2, "views": 2},
        "training": {"steps": 2, "learning_rate": 1e-2},
    }
    adapt(str(tiles(train=3, test=4)), build(fields), tmp_path / "low-rank")
    return tmp_path / "low-rank"


@torch.no_grad()
def test_a_low_rank_adapter_leaves_as_lora_or_merged_and_not_as_shira(low_rank_run, tmp_path):
    from transformers import AutoModel

    stored = open_adapter(low_rank_run)
    config = json.loads((export(low_rank_run, tmp_path / "lora", "lora") / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 2)
    model = AutoModel.from_pretrained(export(low_rank_run, tmp_path / "merged", "merged")).eval()
    pixels = torch.randn(2, 3, 24, 24)
    images = torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    with attached(stored.backbone.module, *stored.adapter.parts):
        assert torch.equal(images, stored.backbone.embed_images(pixels))
    with pytest.raises(AdapterError, match="needs an adapter of kind sparse_delta, not low_rank"):
        export(low_rank_run, tmp_path / "shira", "shira")
    assert not (tmp_path / "shira").exists()


def test_a_shira_folder_is_named_for_peft(run, tmp_path):
    folder = export(run / "adapter", tmp_path / "shira", "shira", backbone=str(open_adapter(run).source))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "SHIRA" and config["mask_type"] != "random"
    tensors = load_file(folder / "adapter_model.safetensors")
    delta = open_adapter(run).adapter.delta
    values = torch.cat([tensor[tensor != 0] for name, tensor in sorted(tensors.items()) if name.endswith("weight")])
    assert sorted(values.tolist()) == sorted(delta.values[delta.values != 0].tolist())


def test_bad_requests_leave_nothing_behind(run, tmp_path, monkeypatch):
    with pytest.raises(SpecError, match="--as gguf"):
        export(run, tmp_path / "out", "gguf")
    with pytest.raises(SpecError, match="--dtype int8"):
        export(run, tmp_path / "out", "merged", dtype="int8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for form in set(FORMS) - {"lora", "onnx" if find_spec("onnxscript") is None else ""}:
        with pytest.raises(AdapterError, match="full"):
            export(run, tmp_path / "full", form)
    with pytest.raises(SpecError, match="--dtype bfloat16: ONNX is written in float32"):
        export(run, tmp_path / "out", "onnx", dtype="bfloat16")
    monkeypatch.setattr(onnx_folder, "find_spec", lambda name: None)
    with pytest.raises(AdapterError, match=r"pip install 'kusabi\[onnx\]'"):
        export(run, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists() and [p.name for p in (tmp_path / "full").iterdir()] == ["file"]
