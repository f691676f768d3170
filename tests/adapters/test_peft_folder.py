import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.peft_folder import export_kusabi
from kusabi.adapters.peft_import import import_peft
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.errors import AdapterError, CheckpointError

CARD = {"classes": ["x", "y"], "prompts": [["x"], ["y"]], "backbone": {"source": "owner/tiny", "revision": "abc"}}
ROOT = "base_model.model."


def model():
    torch.manual_seed(0)
    block = nn.ModuleDict({"fc": nn.Linear(6, 4), "norm": nn.LayerNorm(4)})
    return nn.ModuleDict({"q": nn.Linear(5, 7), "block": block, "attention": nn.MultiheadAttention(4, 2)})


def written(folder, supports, seed=0):
    delta = SparseDelta({name: torch.tensor(sorted(support)).int() for name, support in supports.items()})
    delta.values.data = torch.randn(len(delta), generator=torch.Generator().manual_seed(seed))
    export_kusabi(folder, model(), Adapter((delta,), {}, CARD), Prototypes(torch.eye(2), 1.0))
    return delta


def parts_of(delta):
    return {name: (indices.tolist(), values.tolist()) for name, indices, values in delta.parts()}


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(0, 34)), st.sets(st.integers(0, 23), min_size=1))
def test_what_was_exported_comes_back_entry_by_entry(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("out") / "in"
    delta = written(folder, {"block.fc.weight": second, "q.weight": first})
    found = import_peft(folder, model())
    assert found.kept == 1 and parts_of(found.delta) == parts_of(delta)
    assert found.delta.values.dtype == torch.float32 and found.delta.indices.dtype == torch.int32


def test_entries_of_value_zero_stay_trained_entries(tmp_path):
    delta = SparseDelta({"q.weight": torch.tensor([1, 5, 34])})
    delta.values.data = torch.tensor([0.0, 2.0, -0.0])
    export_kusabi(tmp_path / "out", model(), Adapter((delta,), {}, CARD), Prototypes(torch.eye(2), 1.0))
    assert parts_of(import_peft(tmp_path / "out", model()).delta) == {"q.weight": ([1, 5, 34], [0.0, 2.0, -0.0])}


def test_the_folder_is_what_the_readme_says(tmp_path):
    written(tmp_path / "out", {"q.weight": {3, 9}, "block.fc.weight": set()})
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    shapes = {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}
    assert shapes == {
        f"{ROOT}q.kusabi_indices": ("torch.int32", (2,)),
        f"{ROOT}q.kusabi_values": ("torch.float32", (2,)),
    }
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    assert config["counts"] == {"block.fc": 0, "q": 2} and config["peft_type"] == "KUSABI" and config["stored"]
    assert config["target_modules"] == r"(?:block\.fc|q)"
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "kusabi.json", "prototypes.safetensors"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert "import kusabi.adapters.peft_format" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_all_targets_that_peft_cannot_adapt_are_named(tmp_path):
    with pytest.raises(AdapterError, match=r"only, not attention\.in_proj_weight, attention\.out_proj\.weight$"):
        written(tmp_path / "out", {"attention.in_proj_weight": {1}, "q.weight": {1}, "attention.out_proj.weight": {2}})
    assert list(tmp_path.iterdir()) == []


def spoilt(folder, change_tensors=lambda tensors: None, change_config=lambda config: None):
    written(folder, {"q.weight": {3, 9, 30}, "block.fc.weight": {2, 23}})
    tensors = load_file(folder / "adapter_model.safetensors")
    change_tensors(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    change_config(config)
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (torch.tensor([3, 3, 9]), "q: indices do not rise within the 35 entries"),
        (torch.tensor([9, 3, 30]), "q: indices do not rise"),
        (torch.tensor([3, 9, 35]), "q: indices do not rise"),
        (torch.tensor([-1, 3, 9]), "q: indices do not rise"),
        (torch.tensor([3, 9]), r"q: \(3,\) values and \(2,\) indices for 3 entries"),
        (torch.tensor([[3, 9, 30]]), r"q: \(3,\) values and \(1, 3\) indices"),
        (torch.tensor([3.0, 9.0, 30.0]), "indices torch.float32"),
        (torch.tensor([3, 9, 30], dtype=torch.uint32), r"type that is not read: .*q\.kusabi_indices \(torch.uint32\)"),
    ],
)
def test_entries_that_make_no_sense_are_refused(tmp_path, row, complaint):
    def change(tensors):
        tensors[f"{ROOT}q.kusabi_indices"] = row

    with pytest.raises(CheckpointError, match=complaint):
        import_peft(spoilt(tmp_path / "out", change), model())


def test_all_layers_that_are_not_what_the_configuration_says_are_named(tmp_path):
    def drop(tensors):
        del tensors[f"{ROOT}q.kusabi_indices"], tensors[f"{ROOT}q.kusabi_values"]

    with pytest.raises(CheckpointError) as refusal:
        import_peft(spoilt(tmp_path / "a", drop, lambda config: config["counts"].update({"block.fc": 3})), model())
    assert "block.fc: (2,) values and (2,) indices for 3 entries" in str(refusal.value)
    assert "q: its 3 entries are missing" in str(refusal.value)
    for counts in (None, [2], {"q": 3.0}, {"q": True}):
        with pytest.raises(CheckpointError, match="'counts' must give the number"):
            import_peft(
                spoilt(tmp_path / repr(counts), change_config=lambda c, counts=counts: c.update(counts=counts)), model()
            )


def test_what_would_change_the_outcome_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"modules_to_save = \['head'\], scale = 2"):
        import_peft(
            spoilt(tmp_path / "a", change_config=lambda c: c.update(modules_to_save=["head"], scale=2)), model()
        )
    with pytest.raises(AdapterError, match="a KUSABI adapter is sparse already"):
        import_peft(spoilt(tmp_path / "b"), model(), 5)
