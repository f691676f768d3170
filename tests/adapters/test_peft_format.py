import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from kusabi.adapters.attach import attached, merge
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.peft_format import export_shira, shira_tensors
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError

CARD = {
    "classes": ["x", "y"],
    "prompts": [["x"], ["y"]],
    "backbone": {"source": "owner/tiny", "revision": "abc", "digest": "ab", "preprocessing": {"size": 16}},
}
SIDE = 16
Q, UP = "encoder.layers.1.self_attn.q_proj.weight", "encoder.layers.0.mlp.fc1.weight"


def clip(dtype=torch.float32):
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision, text = {**sizes, "image_size": SIDE, "patch_size": 8}, {**sizes, "vocab_size": 20}
    text |= {"max_position_embeddings": 6, "eos_token_id": 19, "bos_token_id": 18, "pad_token_id": 1}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            if parameter.ndim > 1:
                parameter.view(-1)[::7] = -0.0
    return model.eval().requires_grad_(False).to(dtype)


def delta_of(sizes, seed=0):
    delta = SparseDelta({name: random_support(size, k, seed, name) for name, (size, k) in sizes.items()})
    delta.values.data = torch.randn(len(delta), generator=torch.Generator().manual_seed(seed)).bfloat16().float()
    return delta


def clip_delta():
    return delta_of({f"vision_model.{Q}": (1024, 70), f"text_model.{Q}": (1024, 9), f"vision_model.{UP}": (1280, 100)})


def exported(folder, module, delta):
    prototypes = Prototypes(torch.nn.functional.normalize(torch.randn(2, 8), dim=-1), 10.0)
    prototypes.displacement.data.normal_()
    export_shira(folder, module, Adapter((delta,), {}, CARD), prototypes)
    return prototypes


def pair():
    return nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.ModuleDict({"c": nn.Linear(4, 5)})})


def test_the_folder_is_what_peft_writes_itself(tmp_path):
    module = pair()
    delta = SparseDelta({"b.c.weight": torch.tensor([1, 19]), "a.weight": torch.tensor([0, 2, 5, 23])})
    delta.values.data = torch.tensor([0.5, -2.0, 1.0, 0.0, 3.0, -1.0])
    export_shira(tmp_path / "out", module, Adapter((delta,), {}, CARD), Prototypes(torch.eye(2), 10.0))
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    spelled = {name: (str(tensor.dtype), tensor.tolist()) for name, tensor in tensors.items()}
    assert spelled == {  # r = 1: ten entries of the 4 x 6 layer, nine of the 5 x 4 layer, rows over columns, rising
        "base_model.model.a.shira_weight": ("torch.float32", [1.0, 0, 0, 0, 0, 3.0, 0, 0, 0, -1.0]),
        "base_model.model.a.shira_indices": (
            "torch.int32",
            [[0, 0, 0, 0, 0, 0, 1, 1, 1, 3], [0, 1, 2, 3, 4, 5, 0, 1, 2, 5]],
        ),
        "base_model.model.b.c.shira_weight": ("torch.float32", [0, 0.5, 0, 0, 0, 0, 0, 0, -2.0]),
        "base_model.model.b.c.shira_indices": (
            "torch.int32",
            [[0, 0, 0, 0, 1, 1, 1, 1, 4], [0, 1, 2, 3, 0, 1, 2, 3, 3]],
        ),
    }
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8")) == {
        "auto_mapping": None,
        "base_model_name_or_path": "owner/tiny",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_weights": True,
        "mask_type": "stored",
        "modules_to_save": None,
        "peft_type": "SHIRA",
        "r": 1,
        "random_seed": None,
        "revision": "abc",
        "target_modules": r"(?:a|b\.c)",
        "task_type": None,
    }
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "kusabi.json", "prototypes.safetensors"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "load_adapter` of transformers drops the indices" in readme
    assert 'from_pretrained("owner/tiny", dtype=torch.float32)' in readme, "else a half-precision file is not widened"


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(1, 81), st.integers(0, 9))
def test_padding_changes_no_bit_and_the_rank_is_the_lowest(rows, columns, k, seed):
    module = nn.ModuleDict({"w": nn.Linear(columns, rows)})
    k, fits = min(k, rows * columns), [r for r in range(1, 10) if r * (rows + columns) <= rows * columns]
    delta = delta_of({"w.weight": (rows * columns, k)}, seed)
    wanted = [r for r in fits if r * (rows + columns) >= k]
    if not wanted:
        with pytest.raises(AdapterError, match="export it as merged"):
            shira_tensors(module, delta)
        return
    r, tensors = shira_tensors(module, delta)
    assert r == wanted[0]
    values, (row, column) = tensors["base_model.model.w.shira_weight"], tensors["base_model.model.w.shira_indices"]
    weight = torch.randn(rows, columns)
    weight.view(-1)[::3] = -0.0
    dense, merged = weight.clone(), weight.clone()
    dense.view(-1)[delta.indices.long()] += delta.values.data
    for at, value in zip(zip(row.tolist(), column.tolist(), strict=True), values, strict=True):
        merged[at] += value
    assert len({*zip(row.tolist(), column.tolist(), strict=True)}) == len(values) == r * (rows + columns)
    assert torch.equal(merged.view(torch.int32), dense.view(torch.int32)), "bits, so that -0.0 stays -0.0"
    flat = row.long() * columns + column
    assert bool((flat[1:] > flat[:-1]).all())


def test_entries_of_value_zero_take_no_room_and_layers_without_others_are_left_out():
    delta = delta_of({"a.weight": (24, 12), "b.c.weight": (20, 3)})
    delta.values.data[2:] = 0
    r, tensors = shira_tensors(pair(), delta)
    assert r == 1 and {key.split(".")[2] for key in tensors} == {"a"}
    assert int((tensors["base_model.model.a.shira_weight"] != 0).sum()) == 2
    delta.values.data.zero_()
    r, tensors = shira_tensors(pair(), delta)
    assert r == 1 and len(tensors) == 2 and not any(bool(tensors[key].any()) for key in tensors if "weight" in key)


def test_all_targets_that_peft_cannot_hold_are_named(towers, tmp_path):
    module = towers()
    names = ["vision.3.self_attn.in_proj_weight", "vision.3.self_attn.out_proj.weight", "vision.2.linear1.weight"]
    delta = delta_of(dict.fromkeys(names, (64, 60)))
    delta.values.data[-1] = torch.inf
    with pytest.raises(AdapterError) as refusal:
        exported(tmp_path / "out", module, delta)
    for complaint in (
        f"{names[0]} is not the weight of an nn.Linear of its own",
        f"{names[1]} is not the weight of an nn.Linear of its own",
        f"{names[2]} has values that are not finite",
    ):
        assert complaint in str(refusal.value)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_one_full_layer_forces_the_rank_of_all_and_both_are_named():
    module = nn.ModuleDict({"big": nn.Linear(20, 20), "small": nn.Linear(3, 3)})
    with pytest.raises(AdapterError, match=r"small\.weight has 9 entries, fewer than r = 2 \(needed by big\.weight\)"):
        shira_tensors(module, delta_of({"small.weight": (9, 1), "big.weight": (400, 80)}))
    assert shira_tensors(module, delta_of({"small.weight": (9, 1), "big.weight": (400, 40)}))[0] == 1


def test_a_weight_that_two_layers_share_is_not_plain():
    module = nn.ModuleDict({"one": nn.Linear(4, 4), "two": nn.Linear(4, 4), "own": nn.Linear(4, 4)})
    module["two"].weight = module["one"].weight
    module["table"] = nn.Embedding(4, 4)
    assert set(plain_linears(module)) == {"own.weight"}
    with pytest.raises(AdapterError, match=r"one\.weight is not the weight of an nn\.Linear of its own"):
        shira_tensors(module, delta_of({"one.weight": (16, 1)}))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # peft leaves them as they are
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks transformers 5.23
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_stock_peft_gives_the_very_embeddings_and_logits(tmp_path, dtype):
    peft = pytest.importorskip("peft")
    module, delta = clip(dtype), clip_delta()
    prototypes = exported(tmp_path / "out", module, delta)
    pixels, tokens = torch.randn(3, 3, SIDE, SIDE).to(dtype), torch.tensor([[18, 3, 4, 19], [18, 7, 19, 1]])
    frozen = module.get_image_features(pixel_values=pixels).pooler_output
    with attached(module, delta):
        images = module.get_image_features(pixel_values=pixels).pooler_output
        texts = module.get_text_features(input_ids=tokens).pooler_output
    assert not torch.equal(frozen, images)
    clip(dtype).save_pretrained(tmp_path / "owner")
    readme = (tmp_path / "out" / "README.md").read_text("utf-8").replace("this folder", str(tmp_path / "out"))
    _, setting, reading = readme.replace("owner/tiny", str(tmp_path / "owner")).split("```python\n")
    scope = {"pixel_values": pixels}
    exec(setting.split("```")[0] + reading.split("```")[0], scope)
    model = scope["model"]
    assert isinstance(model, peft.PeftModel) and torch.equal(scope["output"], images)
    assert torch.equal(model.get_text_features(input_ids=tokens).pooler_output, texts)
    assert torch.equal(scope["logits"], prototypes(torch.nn.functional.normalize(images.float(), dim=-1)))
    merge(module, delta)
    merged = model.merge_and_unload()
    for (name, ours), (_, theirs) in zip(module.named_parameters(), merged.named_parameters(), strict=True):
        assert torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8)), name


def test_peft_adapts_no_layer_whose_name_merely_ends_like_a_target(tmp_path):
    peft = pytest.importorskip("peft")
    module = nn.ModuleDict({"fc": nn.Linear(6, 6), "other": nn.ModuleDict({"fc": nn.Linear(6, 6)})})
    exported(tmp_path / "out", module, delta_of({"fc.weight": (36, 5)}))
    model = peft.PeftModel.from_pretrained(module, tmp_path / "out")
    adapted = [name for name, layer in model.named_modules() if hasattr(layer, "shira_weight")]
    assert adapted == ["base_model.model.fc"]


def test_loading_by_transformers_is_never_silently_wrong(tmp_path):
    pytest.importorskip("peft")
    module, delta, pixels = clip(), clip_delta(), torch.randn(2, 3, SIDE, SIDE)
    exported(tmp_path / "out", module, delta)
    with attached(module, delta):
        wanted = module.get_image_features(pixel_values=pixels).pooler_output
    other = clip()
    try:
        other.load_adapter(tmp_path / "out")
        found = other.get_image_features(pixel_values=pixels).pooler_output
    except Exception:
        return  # as of transformers 5.23: KeyError, since the indices were dropped
    assert torch.equal(found, wanted)
