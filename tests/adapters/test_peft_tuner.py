import copy
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

peft = pytest.importorskip("peft", minversion="0.21", reason="peft >= 0.21 is not installed")

from kusabi.adapters.attach import attached, merge  # noqa: E402
from kusabi.adapters.checkpoint import Adapter  # noqa: E402
from kusabi.adapters.peft_folder import export_kusabi  # noqa: E402
from kusabi.adapters.peft_import import import_peft  # noqa: E402
from kusabi.adapters.peft_tuner import KusabiConfig  # noqa: E402
from kusabi.adapters.prototypes import Prototypes  # noqa: E402
from kusabi.adapters.sparse_delta import SparseDelta  # noqa: E402
from kusabi.adapters.support import random_support, scores, top_support  # noqa: E402
from kusabi.errors import AdapterError  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft 0.21 asks transformers 5.23
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # torch's own tracing
]
SIDE = 16
VISION = r"vision_model.*\.(?:q_proj|fc1)"
TOKENS = torch.tensor([[18, 3, 4, 19], [18, 7, 19, 1]])
CARD = {"classes": ["x", "y"], "prompts": [["x"], ["y"]], "backbone": {"source": "owner/tiny"}}


def clip(dtype=torch.float32):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision, text = {**sizes, "image_size": SIDE, "patch_size": 8}, {**sizes, "vocab_size": 20}
    text |= {"max_position_embeddings": 6, "eos_token_id": 19, "bos_token_id": 18, "pad_token_id": 1}
    torch.manual_seed(0)
    module = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            if parameter.ndim > 1:
                parameter.view(-1)[::7] = -0.0
    return module.eval().requires_grad_(False).to(dtype)


def pixels(dtype=torch.float32):
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def embeddings(module, dtype=torch.float32):
    return module.get_image_features(pixel_values=pixels(dtype)).pooler_output.detach()


def trained(module, seed=0, config=None, name="default"):
    """A wrapped model whose values are drawn, one of them exactly zero."""
    wrapped = peft.get_peft_model(module, config or KusabiConfig(target_modules=VISION, budget=150), name).eval()
    draw(wrapped, name, seed)
    return wrapped


def draw(wrapped, name, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in wrapped.named_parameters():
        if key.endswith(f"kusabi_values.{name}"):
            parameter.data = torch.randn(parameter.shape, generator=generator)
            parameter.data[0] = 0.0


def delta_of(wrapped, folder, name="default"):
    """The same adapter as Kusabi reads it."""
    wrapped.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    return import_peft(folder if name == "default" else folder / name, clip()).delta


def rows(delta):
    return {name: indices for name, indices, _ in delta.parts()}


def weights(module):
    named = module.get_base_model() if isinstance(module, peft.PeftModel) else module
    return {
        name.replace(".base_layer", ""): tensor.detach().clone().reshape(-1).view(torch.uint8)
        for name, tensor in named.state_dict().items()
        if "kusabi" not in name
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_fresh_adapter_changes_nothing_and_holds_the_very_entries_of_the_rules():
    module, linears = clip(), dict(clip().named_parameters())
    frozen = embeddings(module)
    config = KusabiConfig(target_modules=VISION, density=0.05, seed=7)
    wrapped = peft.get_peft_model(module, config)
    assert torch.equal(embeddings(wrapped), frozen)
    layers = {
        name: layer for name, layer in wrapped.get_base_model().named_modules() if hasattr(layer, "kusabi_values")
    }
    assert len(layers) == 4 and not any("text" in name for name in layers)
    sizes = {name: linears[f"{name}.weight"].numel() for name in layers}
    assert sum(config.counts.values()) == round(0.05 * sum(sizes.values())) and config.counts.keys() == sizes.keys()
    for name, layer in layers.items():
        indices = layer.kusabi_indices["default"]
        wanted = random_support(sizes[name], config.counts[name], 7, f"{name}.weight")
        assert indices.dtype == torch.int32 and torch.equal(indices, wanted)
    learning = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert len(learning) == 4 and all(name.endswith("kusabi_values.default") for name in learning)
    config = KusabiConfig(target_modules=VISION, budget=40, support_rule="magnitude", allocation="uniform")
    peft.get_peft_model(module := clip(), config)
    assert set(config.counts.values()) == {10}
    layer = module.vision_model.encoder.layers[1].mlp.fc1
    assert torch.equal(layer.kusabi_indices["default"], top_support(scores("magnitude", layer.base_layer.weight), 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_bitwise_what_the_attached_delta_computes_and_so_does_every_reader(tmp_path, dtype):
    wrapped = trained(clip(dtype))
    delta = delta_of(wrapped, tmp_path)
    module = clip(dtype)
    with attached(module, delta):
        wanted = embeddings(module, dtype)
    assert not torch.equal(embeddings(clip(dtype), dtype), wanted)
    native = clip(dtype)
    native.load_adapter(tmp_path)
    readers = {
        "trained": wrapped,
        "from_pretrained": peft.PeftModel.from_pretrained(clip(dtype), tmp_path),
        "low_cpu_mem_usage": peft.PeftModel.from_pretrained(clip(dtype), tmp_path, low_cpu_mem_usage=True),
        "load_adapter": native,
        "copy": copy.deepcopy(wrapped),
    }
    for reader, model in readers.items():
        assert torch.equal(embeddings(model, dtype), wanted), reader
        tensors = {k: v for k, v in model.state_dict().items() if "kusabi" in k}
        kinds = {key.split("kusabi_")[1].split(".")[0]: tensor.dtype for key, tensor in tensors.items()}
        assert kinds == {"values": torch.float32, "indices": torch.int32}, reader


def test_an_exported_adapter_is_trained_on_by_peft_and_comes_home(tmp_path):
    names = ["vision_model.encoder.layers.1.self_attn.q_proj.weight", "text_model.encoder.layers.0.mlp.fc1.weight"]
    delta = SparseDelta({name: random_support(1024, k, 5, name) for name, k in zip(names, (70, 3), strict=True)})
    delta.values.data = torch.randn(len(delta))
    module = clip()
    export_kusabi(tmp_path / "out", module, Adapter((delta,), {}, CARD), Prototypes(torch.eye(2, 8), 10.0))
    readme = (tmp_path / "out" / "README.md").read_text("utf-8").replace("this folder", str(tmp_path / "out"))
    clip().save_pretrained(tmp_path / "owner")
    _, setting, reading = readme.replace("owner/tiny", str(tmp_path / "owner")).split("```python\n")
    scope = {"pixel_values": pixels()}
    exec(setting.split("```")[0] + reading.split("```")[0], scope)
    with attached(module, delta):
        assert torch.equal(scope["output"], embeddings(module))
        assert torch.equal(
            scope["model"].get_text_features(input_ids=TOKENS).pooler_output,
            module.get_text_features(input_ids=TOKENS).pooler_output,
        )
    wrapped = peft.PeftModel.from_pretrained(clip(), tmp_path / "out", is_trainable=True)
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    wrapped.get_image_features(pixel_values=pixels()).pooler_output.square().sum().backward()
    optimizer.step()
    home = delta_of(wrapped, tmp_path / "home")
    before, after = ({n: (i, v) for n, i, v in part.parts()} for part in (delta, home))
    assert before.keys() == after.keys() and all(torch.equal(before[n][0], after[n][0]) for n in before)
    assert torch.equal(before[names[1]][1], after[names[1]][1]), "no picture reaches the text tower"
    assert not torch.equal(before[names[0]][1], after[names[0]][1])


def test_gradients_are_those_of_the_attached_weights(tmp_path):
    wrapped = trained(clip())
    wrapped.get_image_features(pixel_values=pixels()).pooler_output.square().sum().backward()
    found = {n: p.grad for n, p in wrapped.get_base_model().named_parameters() if p.grad is not None}
    module = clip()
    merge(module, delta := delta_of(wrapped, tmp_path))
    module.requires_grad_(True)
    module.get_image_features(pixel_values=pixels()).pooler_output.square().sum().backward()
    dense = dict(module.named_parameters())
    assert len(found) == len(delta.names)
    for name, indices, _ in delta.parts():
        wanted = dense[name].grad.flatten()[indices.long()]
        torch.testing.assert_close(found[f"{name.removesuffix('weight')}kusabi_values.default"], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_restores_every_bit_and_merging_writes_what_merge_does(tmp_path, dtype):
    wrapped = trained(clip(dtype))
    before = weights(clip(dtype))
    frozen, adapted = embeddings(clip(dtype), dtype), embeddings(wrapped, dtype)
    for _ in range(20):
        wrapped.merge_adapter(safe_merge=True)
        assert torch.equal(embeddings(wrapped, dtype), adapted)
        draw(wrapped, "default", seed=3)  # what is merged is no longer what the values say
        wrapped.unmerge_adapter()
        assert same(weights(wrapped), before)
        draw(wrapped, "default")
    wrapped.merge_adapter()
    with wrapped.disable_adapter():
        assert torch.equal(embeddings(wrapped, dtype), frozen)
    assert torch.equal(embeddings(wrapped, dtype), adapted) and same(weights(wrapped), before)
    module = clip(dtype)
    merge(module, delta_of(wrapped, tmp_path))
    plain = wrapped.merge_and_unload()
    assert same(weights(plain), weights(module)) and not same(weights(plain), before)
    assert [m for m in plain.modules() if m._forward_pre_hooks] == []


def test_two_adapters_live_side_by_side_and_add_up(tmp_path):
    wrapped = trained(clip())
    one = embeddings(wrapped)
    wrapped.add_adapter(
        "second", KusabiConfig(target_modules=["fc1", "q_proj"], budget=900, seed=2, layers_to_transform=[1])
    )
    assert torch.equal(embeddings(wrapped), one)
    draw(wrapped, "second", seed=4)
    deltas = [delta_of(wrapped, tmp_path / name, name) for name in ("default", "second")]
    assert sum(".1." in name for name in deltas[1].names) == len(deltas[1].names) == 4  # of both towers
    shared = [set(part[name].tolist()) for name in deltas[0].names if ".1." in name for part in map(rows, deltas)]
    assert shared[0] & shared[1] and shared[2] & shared[3]
    module = clip()
    answers = {}
    for key, chosen in {"default": deltas[:1], "second": deltas[1:], "both": deltas}.items():
        with attached(module, *chosen):
            answers[key] = embeddings(module)
    wrapped.set_adapter("second")
    assert torch.equal(embeddings(wrapped), answers["second"])
    wrapped.base_model.set_adapter(["default", "second"])
    assert torch.equal(embeddings(wrapped), answers["both"])
    before = weights(wrapped)
    wrapped.merge_adapter(["second"])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        wrapped.merge_adapter(["default"])
    assert {str(warning.message).rpartition("additionally ")[2] for warning in heard} == {"merging default."}
    assert torch.allclose(embeddings(wrapped), answers["both"], atol=1e-6), "the sum is taken in another order"
    wrapped.unmerge_adapter()
    assert same(weights(wrapped), before) and same(before, weights(clip()))
    wrapped.set_adapter("default")
    wrapped.delete_adapter("second")
    assert torch.equal(embeddings(wrapped), answers["default"])


def test_merging_after_another_file_was_loaded_still_restores(tmp_path):
    wrapped = trained(clip())
    wrapped.add_adapter("second", KusabiConfig(target_modules=VISION, budget=99, seed=4))
    draw(wrapped, "second")
    before = weights(wrapped)
    wrapped.merge_adapter()
    trained(clip(), 5, KusabiConfig(target_modules=VISION, budget=150, seed=9)).save_pretrained(tmp_path)
    peft.set_peft_model_state_dict(wrapped, load_file(tmp_path / "adapter_model.safetensors"))
    with pytest.warns(UserWarning, match="additionally merging second"):
        wrapped.merge_adapter(["second"])
    assert not same(weights(wrapped), before)
    wrapped.unmerge_adapter()
    assert same(weights(wrapped), before)


def test_casts_of_the_whole_model_leave_indices_whole_and_the_frozen_model_restorable():
    wrapped = trained(clip())
    before = {k: v.clone() for k, v in wrapped.state_dict().items() if "indices" in k}
    wrapped.to(torch.bfloat16)
    wrapped.half()
    after = {k: v for k, v in wrapped.state_dict().items() if "indices" in k}
    assert all(torch.equal(before[k], after[k]) and after[k].dtype == torch.int32 for k in before)
    assert embeddings(wrapped, torch.float16).isfinite().all()


def test_rows_of_several_adapters_are_refused_however_the_model_is_called(tmp_path):
    wrapped = trained(clip())
    wrapped.save_pretrained(tmp_path)
    native = clip()
    native.load_adapter(tmp_path)
    names = ["default", "__base__", "default"]
    for call in (
        lambda: wrapped(pixel_values=pixels(), input_ids=TOKENS, adapter_names=names),
        lambda: wrapped.get_image_features(pixel_values=pixels(), adapter_names=names),
        lambda: native(pixel_values=pixels(), input_ids=TOKENS, adapter_names=names),
        lambda: native.get_image_features(pixel_values=pixels(), adapter_names=names),
        lambda: native.vision_model(pixel_values=pixels(), adapter_names=names),
    ):
        with pytest.raises(AdapterError, match="adapter_names: one batch cannot mix"):
            call()
    assert embeddings(wrapped).isfinite().all()


def test_given_entries_are_taken_as_they_are_and_leave_the_configuration_for_the_file(tmp_path):
    path = "vision_model.encoder.layers.0.mlp.fc2"
    config = KusabiConfig(support_rule="given", indices={path: torch.tensor([0, 7, 1279])})
    wrapped = trained(clip(), config=config)
    wrapped.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    assert (stored["indices"], stored["stored"], stored["counts"]) == (None, True, {path: 3})
    assert import_peft(tmp_path, clip()).delta.indices.tolist() == [0, 7, 1279]
    assert torch.equal(embeddings(peft.PeftModel.from_pretrained(clip(), tmp_path)), embeddings(wrapped))


def test_a_stored_configuration_without_its_file_is_refused_at_the_first_use(tmp_path):
    trained(clip()).save_pretrained(tmp_path)
    wrapped = peft.get_peft_model(clip(), peft.PeftConfig.from_pretrained(tmp_path))
    with pytest.raises(AdapterError, match=r"q_proj, adapter 'default': its entries were never loaded"):
        embeddings(wrapped)


@pytest.mark.parametrize("row", [[-5, 1], [3, 3], [9, 2], [2, 10**6]])
def test_a_damaged_file_is_refused_at_the_first_use(tmp_path, row):
    wrapped = trained(clip())
    wrapped.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("layers.1.mlp.fc1.kusabi_indices"))
    tensors[key][:2] = torch.tensor(row)
    save_file(tensors, path)
    with pytest.raises(AdapterError, match=r"layers\.1\.mlp\.fc1, adapter 'default': indices do not rise"):
        embeddings(peft.PeftModel.from_pretrained(clip(), tmp_path))
    embeddings(wrapped)
    peft.set_peft_model_state_dict(wrapped, tensors)
    with pytest.raises(AdapterError, match="indices do not rise"):
        wrapped.merge_adapter()


def test_everything_wrong_with_a_configuration_is_said_at_once():
    with pytest.raises(AdapterError) as refusal:
        KusabiConfig(
            target_modules="q", density=0, budget=0, allocation="energy", support_rule="best", layers_to_transform=[1]
        )
    for part in ("density 0", "budget 0", "allocation 'energy'", "support_rule 'best'", "layers_to_transform goes"):
        assert part in str(refusal.value)
    with pytest.raises(AdapterError, match="indices belong to support_rule 'given'"):
        KusabiConfig(target_modules="q", support_rule="given")
    with pytest.raises(AdapterError, match="layers_pattern needs layers_to_transform"):
        KusabiConfig(target_modules=["q"], layers_pattern="layers")
    with pytest.raises(AdapterError, match="stored entries need counts"):
        KusabiConfig(target_modules="q", stored=True)


def test_layers_that_cannot_be_adapted_exactly_are_all_named_before_anything_changes():
    module = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "fc": nn.Linear(4, 4), "tied": nn.Linear(4, 4)})
    module["table"], module["twin"] = nn.Embedding(4, 4), nn.Linear(4, 4)
    module["twin"].weight = module["tied"].weight
    with pytest.raises(AdapterError) as refusal:
        peft.get_peft_model(module, KusabiConfig(target_modules=["out_proj", "fc", "tied", "table"]))
    assert "attention.out_proj is a NonDynamicallyQuantizableLinear" in str(refusal.value)
    assert "table is a Embedding" in str(refusal.value) and "tied shares its weight" in str(refusal.value)
    assert type(module["fc"]) is nn.Linear and not module._forward_pre_hooks
    with pytest.raises(AdapterError, match=r"budget 17 is larger than the 16 entries"):
        peft.get_peft_model(module, KusabiConfig(target_modules=["fc"], budget=17))
    given = {"fc": [1, 99], "gone": [1]}
    with pytest.raises(AdapterError) as refusal:
        peft.get_peft_model(module, KusabiConfig(target_modules=["fc"], support_rule="given", indices=given))
    assert "fc: indices do not rise within its 16" in str(refusal.value) and "given for gone" in str(refusal.value)
    with pytest.raises(AdapterError, match="fc is targeted, but no entries"):
        peft.get_peft_model(module, KusabiConfig(target_modules=["fc"], support_rule="given", indices={"gone": [1]}))
    with pytest.raises(ValueError, match="target_modules"):
        peft.get_peft_model(module, KusabiConfig())


def test_all_linear_layers_and_layers_that_get_nothing():
    config = KusabiConfig(
        target_modules="all-linear", exclude_modules=["visual_projection", "text_projection"], budget=3
    )
    wrapped = peft.get_peft_model(clip(), config)
    adapted = [name for name, layer in wrapped.named_modules() if hasattr(layer, "kusabi_values")]
    assert len(adapted) == 3 and len(config.counts) == 24 and sum(config.counts.values()) == 3


def test_it_compiles_whole_and_exports():
    module = nn.ModuleDict({"fc": nn.Linear(6, 5)})
    wrapped = trained(module, config=KusabiConfig(target_modules=["fc"], budget=7))
    layer, inputs = wrapped.get_base_model()["fc"], torch.randn(3, 6)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(inputs), layer(inputs))
    program = torch.export.export(layer, (inputs,)).module()
    assert torch.equal(program(inputs), layer(inputs))
