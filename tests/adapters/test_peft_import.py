import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.peft_format import export_shira
from kusabi.adapters.peft_import import import_lora, import_peft
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, CheckpointError

CARD = {"classes": ["x", "y"], "prompts": [["x"], ["y"]], "backbone": {"source": "owner/tiny"}}
ROOT = "base_model.model."


def model():
    torch.manual_seed(0)
    block = nn.ModuleDict({"fc": nn.Linear(6, 4), "norm": nn.LayerNorm(4)})
    return nn.ModuleDict({"q": nn.Linear(5, 7), "block": block, "attention": nn.MultiheadAttention(4, 2)})


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def shira(folder, change_config=None, change=lambda tensors: None):
    draw = torch.Generator().manual_seed(0)
    flat = {"q": torch.randperm(35, generator=draw)[:12], "block.fc": torch.randperm(24, generator=draw)[:10]}
    tensors = {}
    for path, columns in (("q", 5), ("block.fc", 6)):
        at = flat[path]  # in no order: PEFT's rows and columns are, others' need not be
        tensors[f"{ROOT}{path}.shira_indices"] = torch.stack([at // columns, at % columns]).to(torch.int32)
        tensors[f"{ROOT}{path}.shira_weight"] = torch.arange(len(at)) - 3.0
    change(tensors)
    config = {"peft_type": "SHIRA", "r": 1, "mask_type": "random", "modules_to_save": None, "target_modules": ["q"]}
    return write(folder, config | (change_config or {}), tensors), flat


def lora(folder, change_config=None, change=lambda tensors: None, r=2, zero=False):
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for path, rows, columns in (("block.fc", 4, 6), ("q", 7, 5)):
        tensors[f"{ROOT}{path}.lora_A.weight"] = torch.randn(r, columns, generator=draw)
        tensors[f"{ROOT}{path}.lora_B.weight"] = torch.randn(rows, r, generator=draw) * (0 if zero else 1)
    change(tensors)
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 6, "bias": "none", "use_dora": False, "loftq_config": {}}
    return write(folder, config | (change_config or {}), tensors), tensors


def update(tensors, path, scale):
    a, b = (tensors[f"{ROOT}{path}.lora_{side}.weight"].double() for side in "AB")
    return torch.stack([scale * sum(b[:, j : j + 1] * a[j] for j in range(len(a)))])[0].flatten()


def parts_of(delta):
    return {name: dict(zip(indices.tolist(), values.tolist(), strict=True)) for name, indices, values in delta.parts()}


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(0, 34), max_size=24), st.sets(st.integers(0, 23), min_size=1, max_size=18))
def test_what_was_exported_comes_back_without_its_padding(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("out")
    supports = {"block.fc.weight": torch.tensor(sorted(second)), "q.weight": torch.tensor(sorted(first)).long()}
    delta = SparseDelta(supports)
    delta.values.data = torch.arange(len(delta)) * 0.3 + 0.1
    export_shira(folder, model(), Adapter((delta,), {}, CARD), Prototypes(torch.eye(2), 1.0))
    imported = import_peft(folder, model())
    assert imported.kept == 1.0
    assert parts_of(imported.delta) == {name: part for name, part in parts_of(delta).items() if part}


@pytest.mark.parametrize("stored", [torch.int32, torch.int64, torch.float32])  # PEFT on Windows writes fp32
def test_a_shira_folder_is_read_exactly_and_its_zeros_are_dropped(tmp_path, stored):
    def cast(tensors):
        for name in [name for name in tensors if name.endswith("indices")]:
            tensors[name] = tensors[name].to(stored)

    folder, flat = shira(tmp_path, change=cast)
    delta = import_peft(folder, model()).delta
    assert delta.names == ("q.weight", "block.fc.weight"), "in the order of the model"
    wanted = {f"{path}.weight": {int(i): k - 3.0 for k, i in enumerate(at) if k != 3} for path, at in flat.items()}
    assert parts_of(delta) == {name: dict(sorted(part.items())) for name, part in wanted.items()}


def test_all_faults_of_a_shira_folder_are_named(tmp_path):
    def spoil(tensors):
        tensors[f"{ROOT}q.shira_indices"][1, 4] = 5
        tensors[f"{ROOT}block.fc.shira_weight"] = torch.zeros(9)

    with pytest.raises(CheckpointError) as refusal:
        import_peft(shira(tmp_path, change=spoil)[0], model())
    assert "q: indices outside of its 7 x 5 entries" in str(refusal.value)
    assert "block.fc: values (9,) and indices (2, 10), expected (10,) and (2, 10)" in str(refusal.value)


@pytest.mark.parametrize("wrong", [-1, 7, 0.5])
def test_indices_that_point_nowhere_are_refused(tmp_path, wrong):
    def spoil(tensors):
        tensors[f"{ROOT}q.shira_indices"] = tensors[f"{ROOT}q.shira_indices"].float()
        tensors[f"{ROOT}q.shira_indices"][0, 2] = wrong

    with pytest.raises(CheckpointError, match="q: indices outside"):
        import_peft(shira(tmp_path, change=spoil)[0], model())


def test_repeated_indices_and_adapters_without_values_are_refused(tmp_path):
    def repeat(tensors):
        tensors[f"{ROOT}q.shira_indices"][:, 4] = tensors[f"{ROOT}q.shira_indices"][:, 5]

    with pytest.raises(CheckpointError, match="q: repeated indices"):
        import_peft(shira(tmp_path, change=repeat)[0], model())
    silent = shira(tmp_path, change=lambda t: [t[name].zero_() for name in t if name.endswith("weight")])[0]
    with pytest.raises(AdapterError, match="never trained"):
        import_peft(silent, model())
    with pytest.raises(CheckpointError, match="'r' must be a positive number, not 'one'"):
        import_peft(shira(tmp_path, {"r": "one"})[0], model())
    with pytest.raises(AdapterError, match="leave the budget out"):
        import_peft(shira(tmp_path)[0], model(), budget=3)


@pytest.mark.parametrize("kind", ["shira", "lora"])
def test_missing_and_foreign_tensors_are_all_named(tmp_path, kind):
    first = "shira_indices" if kind == "shira" else "lora_B.weight"
    foreign = ["block.norm.weight", "attention.out_proj.shira_weight", "gone.lora_A.weight", "q.lora_A.bias"]

    def spoil(tensors):
        del tensors[f"{ROOT}q.{first}"]
        tensors.update({ROOT + name: torch.zeros(2) for name in foreign})
        tensors["q.shira_weight"] = torch.zeros(2)

    folder, _ = (shira if kind == "shira" else lora)(tmp_path, change=spoil)
    with pytest.raises(CheckpointError) as refusal:
        import_peft(folder, model(), None if kind == "shira" else 3)
    assert f"'{ROOT}q.{first}' is missing" in str(refusal.value)
    assert all(f"takes '{ROOT}{name}'" in str(refusal.value) for name in foreign)
    assert "takes 'q.shira_weight'" in str(refusal.value)


SCALES = [
    ({}, 3.0, 3.0),
    ({"use_rslora": True}, 6 / math.sqrt(2), 6 / math.sqrt(2)),
    ({"alpha_pattern": {"fc": 2, ".*": 40}}, 20.0, 1.0),
    ({"alpha_pattern": {"q": 1, "c": 100}, "rank_pattern": {"block.fc": 2}, "init_lora_weights": "eva"}, 0.5, 3.0),
]


@pytest.mark.parametrize(("config", "of_q", "of_fc"), SCALES)
@pytest.mark.parametrize("budget", [1, 7, 40, 59])
def test_a_lora_becomes_the_sparse_delta_of_the_least_squared_error(tmp_path, config, of_q, of_fc, budget):
    folder, tensors = lora(tmp_path, config)
    dense = {"q.weight": update(tensors, "q", of_q), "block.fc.weight": update(tensors, "block.fc", of_fc)}
    ranked = sorted(((-abs(float(v)), name, i) for name, row in dense.items() for i, v in enumerate(row)))[:budget]
    imported = import_peft(folder, model(), budget)
    found = parts_of(imported.delta)
    assert {(name, i) for name, part in found.items() for i in part} == {(name, i) for _, name, i in ranked}
    for name, part in found.items():
        for i, value in part.items():
            assert math.isclose(value, float(dense[name][i]), rel_tol=1e-4, abs_tol=1e-5)
    whole = sum(float(row.square().sum()) for row in dense.values())
    assert math.isclose(imported.kept, sum(score**2 for score, *_ in ranked) / whole, rel_tol=1e-4)
    assert (imported.kept > 1 - 1e-6) == (budget == 59) and imported.kept <= 1


def test_equal_entries_are_kept_by_layer_and_then_by_index(tmp_path):
    folder, _ = lora(tmp_path, change=lambda t: [t[name].fill_(1.0) for name in t])
    found = parts_of(import_peft(folder, model(), 37).delta)
    assert {name: list(part) for name, part in found.items()} == {
        "q.weight": list(range(35)),
        "block.fc.weight": [0, 1],
    }


def test_a_lora_without_budget_is_refused_and_so_is_one_that_fits_nothing(tmp_path):
    folder, _ = lora(tmp_path)
    with pytest.raises(AdapterError, match="dense \\(59 entries in 2 layers\\) and cannot be read exactly"):
        import_peft(folder, model())
    for budget in (0, 60):
        with pytest.raises(AdapterError, match=f"budget {budget} is not within 1 and the 59"):
            import_peft(folder, model(), budget)
    with pytest.raises(AdapterError, match="never trained"):
        import_peft(lora(tmp_path, zero=True)[0], model(), 5)


def test_all_layers_of_a_wrong_rank_or_scale_are_named(tmp_path):
    folder, _ = lora(tmp_path, {"rank_pattern": {"q": 3}, "alpha_pattern": {"fc": "many"}})
    with pytest.raises(CheckpointError) as refusal:
        import_peft(folder, model(), 5)
    assert "q: A (2, 5) and B (7, 2), expected (3, 5) and (7, 3)" in str(refusal.value)
    assert "block.fc: rank 2 and alpha 'many' must be positive numbers" in str(refusal.value)


SETTINGS = {
    "use_dora": True, "bias": "lora_only", "modules_to_save": ["head"], "target_parameters": ["w"], "lora_bias": True,
    "layer_replication": [[0, 1]], "trainable_token_indices": [1], "from_the_future": {"a": 1},
    "init_lora_weights": "pissa_niter_4", "alora_invocation_tokens": [1], "use_qalora": True, "rank_pattern": [2],
    "alpha_pattern": "q",
}  # fmt: skip


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_that_change_the_outcome_are_refused_by_name(tmp_path, key):
    with pytest.raises(CheckpointError, match=f"settings that cannot be read: {key} = "):
        import_peft(lora(tmp_path, {key: SETTINGS[key]})[0], model(), 5)


@pytest.mark.parametrize("pattern", ["(", "q{99999999999}", "[z-a]"])
def test_a_pattern_that_is_none_is_refused_by_name(tmp_path, pattern):
    for key in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(CheckpointError, match=f"cannot be read: {key} with {re.escape(repr(pattern))}"):
            import_lora(lora(tmp_path, {key: {pattern: 2}})[0], model())


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint32, torch.complex64, torch.bool])
def test_numbers_of_a_type_that_nobody_stores_are_refused_by_name(tmp_path, stored):
    def change(tensors):
        name = f"{ROOT}q.lora_A.weight"
        tensors[name] = torch.zeros(tensors[name].shape, dtype=stored)

    with pytest.raises(CheckpointError, match=rf"type that is not read: base_model\.model\.q\..* \({stored}\)"):
        import_lora(lora(tmp_path, change=change)[0], model())


def test_several_such_settings_are_named_at_once(tmp_path):
    with pytest.raises(CheckpointError) as refusal:
        import_peft(shira(tmp_path, {"modules_to_save": ["head"], "shira_twist": 2})[0], model())
    assert "modules_to_save = ['head'], shira_twist = 2" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"peft_type": "IA3"}', "PEFT type 'IA3' cannot be read; SHIRA, LORA, KUSABI can"),
        ('{"config": {}, "version": "1.2"}', "names no peft_type; other libraries"),
        ('["SHIRA"]', "names no peft_type"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_folder_of_another_kind_is_refused(tmp_path, text, complaint):
    shira(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=complaint):
        import_peft(tmp_path, model())


def test_missing_damaged_and_not_finite_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is this the folder of an adapter"):
        import_peft(tmp_path / "nowhere", model())
    folder, _ = shira(tmp_path, change=lambda t: t[f"{ROOT}q.shira_weight"].fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"not finite in base_model\.model\.q\.shira_weight"):
        import_peft(folder, model())
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        import_peft(folder, model())
    path.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickle files are never read"):
        import_peft(folder, model())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # peft leaves them as they are
@pytest.mark.parametrize("kind", ["shira", "lora", "rslora"])
def test_what_peft_saves_is_what_peft_computes(tmp_path, kind):
    peft = pytest.importorskip("peft")
    chosen = {"target_modules": ["q", "fc"], "r": 2}
    if kind == "shira":
        chosen["r"], config = 1, peft.ShiraConfig(**{**chosen, "r": 1}, random_seed=3, init_weights=False)
    else:
        config = peft.LoraConfig(**chosen, lora_alpha=5, use_rslora=kind == "rslora", alpha_pattern={"q": 1})
    wrapped = peft.get_peft_model(model(), config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    wrapped.save_pretrained(tmp_path)
    delta = import_peft(tmp_path, model(), None if kind == "shira" else 59).delta
    merged, plain = dict(wrapped.merge_and_unload().named_parameters()), dict(model().named_parameters())
    for name, indices, values in delta.parts():
        wanted = plain[name].detach().flatten().clone()
        wanted[indices.long()] += values
        assert torch.allclose(merged[name].flatten(), wanted, rtol=1e-5, atol=0 if kind == "shira" else 1e-5)
    assert set(delta.names) == {"q.weight", "block.fc.weight"}
