import copy
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel

from kusabi.adapters.attach import attached, merge
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.low_rank import fresh
from kusabi.adapters.merged_training import working_copy
from kusabi.adapters.peft_import import import_lora
from kusabi.adapters.peft_lora import export_lora, lora_tensors
from kusabi.adapters.prototypes import Prototypes
from kusabi.errors import AdapterError, CheckpointError

CARD = {
    "classes": ["x", "y"],
    "prompts": [["x"], ["y"]],
    "backbone": {"source": "owner/tiny", "revision": "abc", "digest": "ab", "preprocessing": {"size": 24}},
}
Q, OUT, UP = (
    "vision_model.encoder.layers.1.self_attn.q_proj.weight",
    "vision_model.encoder.layers.2.self_attn.out_proj.weight",
    "text_model.encoder.layers.0.mlp.fc1.weight",
)
NEAR = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft 0.21 asks transformers 5.23
]


def pair():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.ModuleDict({"a": nn.Linear(4, 5)})}).requires_grad_(False)


def part_of(shapes, rank=2, alpha=3.0, **options):
    part = fresh(shapes, rank, alpha, **options)
    part.values.data = torch.randn(len(part), generator=torch.Generator().manual_seed(0)).bfloat16().float()
    return part


def clip(folder, dtype=torch.float32):
    return CLIPModel.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)


def clip_part(module, **options):
    shapes = {name: tuple(module.get_parameter(name).shape) for name in (Q, OUT, UP)}
    return part_of(shapes, {Q: 3, OUT: 2, UP: 3}, {Q: 4.0, OUT: 1.5, UP: 2.0}, **options)


def prototypes_of(width):
    torch.manual_seed(1)
    prototypes = Prototypes(nn.functional.normalize(torch.randn(2, width), dim=-1), 10.0)
    prototypes.displacement.data.normal_()
    return prototypes


def test_the_folder_is_what_peft_writes_itself(tmp_path):
    part = part_of({"a.weight": (4, 6), "b.a.weight": (5, 4)}, {"a.weight": 1, "b.a.weight": 2}, 3.0, dropout=0.25)
    export_lora(tmp_path / "out", pair(), Adapter((part,), {}, CARD), prototypes_of(2))
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    tensors, values = load_file(tmp_path / "out" / "adapter_model.safetensors"), part.values.detach()
    assert {name: tensor.dtype for name, tensor in tensors.items()} == dict.fromkeys(tensors, torch.float32)
    root, at = "base_model.model.", 0
    for key, shape in (("a.lora_A", (1, 6)), ("a.lora_B", (4, 1)), ("b.a.lora_A", (2, 4)), ("b.a.lora_B", (5, 2))):
        stored = tensors.pop(f"{root}{key}.weight")
        assert torch.equal(stored, values[at : at + math.prod(shape)].view(shape))
        at += math.prod(shape)
    assert not tensors and at == len(values)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8")) == {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "owner/tiny",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 3,
        "lora_dropout": 0.25,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 2,
        "rank_pattern": {"^a": 1},
        "revision": "abc",
        "target_modules": r"(?:a|b\.a)",
        "task_type": None,
        "use_rslora": False,
    }
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "kusabi.json", "prototypes.safetensors"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_what_was_exported_comes_back_bitwise(tmp_path, rank_stabilized):
    shapes = {"a.weight": (4, 6), "b.a.weight": (5, 4)}
    ranks, alphas = {"a.weight": 1, "b.a.weight": 3}, {"a.weight": 0.7, "b.a.weight": 16.0}
    part = part_of(shapes, ranks, alphas, rank_stabilized=rank_stabilized, dropout=0.25)
    export_lora(tmp_path / "out", pair(), Adapter((part,), {}, CARD), prototypes_of(2))
    read = import_lora(tmp_path / "out", pair())
    assert read.settings() == part.settings() and read.names == part.names
    assert torch.equal(read.values, part.values)


def test_all_weights_that_peft_cannot_hold_are_named(towers, tmp_path):
    module, fused, out = towers(), "vision.3.self_attn.in_proj_weight", "vision.3.self_attn.out_proj.weight"
    part = part_of({fused: (24, 8), out: (8, 8), "vision.2.linear1.weight": (16, 8)})
    part.values.data[-1] = torch.inf
    with pytest.raises(AdapterError) as refusal:
        export_lora(tmp_path / "out", module, Adapter((part,), {}, CARD), prototypes_of(8))
    for complaint in (
        f"{fused} is not the weight of an nn.Linear of its own",
        f"{out} is not the weight of an nn.Linear of its own",
        "vision.2.linear1.weight has values that are not finite",
    ):
        assert complaint in str(refusal.value)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"
    with pytest.raises(AdapterError, match="does not fit this model"):
        lora_tensors(pair(), part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"rank_stabilized": True, "dropout": 0.3}, {"shrinkage": 0.1}])
def test_stock_peft_gives_the_embeddings_and_logits_of_the_readme(tmp_path, tiny, dtype, options):
    peft = pytest.importorskip("peft")
    module, (pixels, tokens) = clip(tiny("clip"), dtype), (torch.randn(3, 3, 24, 24).to(dtype), torch.arange(4)[None])
    part, prototypes = clip_part(module, **options), prototypes_of(12)
    if options.get("shrinkage"):
        part.settle(5.0, 0.5)
        assert 0 < int((part.factors(Q)[2] == 0).sum() + (part.factors(OUT)[2] == 0).sum()) < 5
    frozen = module.get_image_features(pixel_values=pixels).pooler_output
    export_lora(tmp_path / "out", module, Adapter((part,), {}, CARD), prototypes)
    readme = (tmp_path / "out" / "README.md").read_text("utf-8").replace("this folder", str(tmp_path / "out"))
    _, setting, reading = readme.replace("owner/tiny", str(tiny("clip"))).split("```python\n")
    scope = {"pixel_values": pixels}
    exec(setting.split("```")[0] + reading.split("```")[0], scope)
    model = scope["model"]
    with torch.no_grad():
        texts = model.get_text_features(input_ids=tokens).pooler_output
        with working_copy(module, part if not options.get("shrinkage") else part.pruned()):
            images = module.get_image_features(pixel_values=pixels).pooler_output
            assert torch.equal(images, scope["output"]), "bitwise what the part computes in training"
            assert torch.equal(module.get_text_features(input_ids=tokens).pooler_output, texts)
    with attached(module, part):
        images = module.get_image_features(pixel_values=pixels).pooler_output
    assert isinstance(model, peft.PeftModel)
    assert float((frozen.float() - images.float()).abs().max()) > 6 * NEAR[dtype]
    torch.testing.assert_close(scope["output"].float(), images.float(), rtol=NEAR[dtype], atol=NEAR[dtype])
    logits = prototypes(nn.functional.normalize(scope["output"].float(), dim=-1))
    assert torch.equal(scope["logits"], logits)
    merged, ours = model.merge_and_unload(), copy.deepcopy(module)
    merge(ours, part)
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), merged.named_parameters(), strict=True):
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(mine, theirs, rtol=2 * eps, atol=2 * eps, msg=name)


def test_loading_by_transformers_is_the_same(tmp_path, tiny):
    pytest.importorskip("peft")
    module, pixels = clip(tiny("clip")), torch.randn(2, 3, 24, 24)
    part = clip_part(module)
    export_lora(tmp_path / "out", module, Adapter((part,), {}, CARD), prototypes_of(12))
    other = clip(tiny("clip"))
    other.load_adapter(tmp_path / "out")
    with working_copy(module, part), torch.no_grad():
        wanted = module.get_image_features(pixel_values=pixels).pooler_output
        assert torch.equal(other.get_image_features(pixel_values=pixels).pooler_output, wanted)


def test_patterns_meet_their_own_layer_only(tmp_path):
    peft = pytest.importorskip("peft")
    shapes, module = {"a.weight": (4, 6), "b.a.weight": (5, 4)}, pair()
    module["aXb"] = nn.Linear(3, 3)
    part = part_of(shapes, {"a.weight": 1, "b.a.weight": 3}, {"a.weight": 0.5, "b.a.weight": 6.0})
    export_lora(tmp_path / "out", module, Adapter((part,), {}, CARD), prototypes_of(2))
    model = peft.PeftModel.from_pretrained(module, tmp_path / "out")
    adapted = {n: layer for n, layer in model.named_modules() if hasattr(layer, "lora_A") and hasattr(layer, "r")}
    found = {name.removeprefix("base_model.model."): (layer.r, layer.scaling) for name, layer in adapted.items()}
    assert found == {"a": ({"default": 1}, {"default": 0.5}), "b.a": ({"default": 3}, {"default": 2.0})}


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_what_peft_trained_and_saved_is_read_exactly(tmp_path, options):
    peft = pytest.importorskip("peft")
    inputs = torch.randn(3, 6)
    config = peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=["a"], rank_pattern={"b.a": 3}, alpha_pattern={"b.a": 7}, lora_dropout=0.1,
        **options,
    )  # fmt: skip
    model = peft.get_peft_model(pair(), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    model.save_pretrained(tmp_path)
    module, part = pair(), import_lora(tmp_path, pair())
    assert part.ranks == {"a.weight": 2, "b.a.weight": 3} and part.dropout == 0.1
    with working_copy(module, part), torch.no_grad():
        assert torch.equal(module["a"](inputs), model.eval().base_model.model["a"](inputs))
        hidden = module["a"](inputs)
        assert torch.equal(module["b"]["a"](hidden), model.base_model.model["b"]["a"](hidden))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"peft_type": "SHIRA"}, "PEFT type 'SHIRA' is no LORA"),
        ({"use_dora": True}, "settings that cannot be read: use_dora = True"),
        ({"lora_dropout": 1.5}, r"dropout must be in \[0, 1\), not 1.5"),
        ({"r": 3}, r"a: A \(2, 6\) and B \(4, 2\), expected \(3, 6\)"),
        ({"lora_alpha": "4"}, "alpha '4' must be positive numbers"),
    ],
)
def test_folders_that_cannot_be_read_exactly_are_refused(tmp_path, change, complaint):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["a"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
    root = "base_model.model.a.lora_"
    save_file(
        {f"{root}A.weight": torch.ones(2, 6), f"{root}B.weight": torch.ones(4, 2)},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=complaint):
        import_lora(tmp_path, pair())
