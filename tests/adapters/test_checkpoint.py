import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

from kusabi.adapters import checkpoint
from kusabi.adapters.card import check_backbone
from kusabi.adapters.checkpoint import CARD, WEIGHTS, Adapter, load_adapter, pack, save_adapter
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import random_support
from kusabi.errors import AdapterError, CheckpointError, FileError

GOLDEN = Path(__file__).parents[1] / "golden" / "sparse_delta-1"  # made by the script in tests/golden/README.md


def card_of(sizes, head):
    return {
        "kind": "sparse_delta",
        "targets": [{"tensor": name, "tower": "vision", "size": size} for name, size in sizes.items()],
        "backbone": {"source": "mini", "digest": "ab" * 32, "tensors": {"w": "cd"}, "preprocessing": {"size": 224}},
        "classes": ["良品", "scratch"],
        "prompts": [["良品"], ["a scratch"]],
        "embedding_size": 3,
        "head": {"kind": head},
    }


@st.composite
def adapters(draw):
    sizes = draw(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 5000), min_size=1, max_size=4))
    supports = {name: random_support(n, draw(st.integers(0, min(n, 40))), 0, "") for name, n in sizes.items()}
    delta, random = SparseDelta(supports), torch.Generator().manual_seed(draw(st.integers(0, 99)))
    delta.values.data = torch.randn(len(delta), generator=random) * 10.0 ** draw(st.integers(-9, 9))
    shapes = {"displacement": (2, 3), "offset": (2,), "log_gain": ()} if draw(st.booleans()) else {}
    head = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return Adapter((delta,), head, card_of(sizes, "prototypes" if head else "text"))


def both_files(folder):
    return (folder / WEIGHTS).read_bytes(), (folder / CARD).read_bytes()


@pytest.fixture
def damaged(tmp_path):
    # A copy of the golden adapter with its card or tensors changed; sealed anew, so that only the content counts.
    def write(change_card=lambda card: None, change_tensors=lambda tensors: None):
        card, tensors = json.loads((GOLDEN / CARD).read_text("utf-8")), load_tensors((GOLDEN / WEIGHTS).read_bytes())
        change_card(card)
        change_tensors(tensors)
        weights = dump_tensors(tensors)
        (tmp_path / WEIGHTS).write_bytes(weights)
        (tmp_path / CARD).write_text(json.dumps({**card, "digest": checkpoint._digest(weights, card)}), "utf-8")
        return tmp_path

    return write


def test_the_golden_adapter_of_schema_1_loads_with_its_exact_values():
    adapter = load_adapter(GOLDEN)
    parts = {name: (indices.tolist(), values.tolist()) for name, indices, values in adapter.delta.parts()}
    assert parts == {
        "vision.2.linear1.weight": ([0, 5, 127], [0.5, -0.25, 0.0]),
        "vision.3.linear2.weight": ([], []),
        "vision.3.self_attn.in_proj_weight": ([3, 100, 101, 191], [1.0, 2.0**-10, -3.0, 0.10009765625]),
    }
    assert adapter.delta.values.dtype == torch.float32
    assert adapter.head["displacement"].tolist() == [[0.5, 0.0, -0.125], [0.25, 1.0, 0.10009765625]]
    assert adapter.head["offset"].tolist() == torch.tensor([0.1, -0.2]).tolist()
    assert adapter.head["log_gain"].item() == torch.tensor(0.3).item()
    assert {tensor.dtype for tensor in adapter.head.values()} == {torch.float32}
    assert adapter.card["classes"] == ["良品", "scratch"] and adapter.card["prompts"][0] == ["良品の写真"]
    assert [target["entries"] for target in adapter.card["targets"]] == [3, 0, 4]
    assert adapter.card["digest"] == "3b6fe90cc29af1f3a060459e4d58d07d01e80c6eb13083118230ba733435da74"


@settings(max_examples=20, deadline=None)
@given(adapters())
def test_saving_loading_and_saving_again_gives_the_same_bytes(tmp_path_factory, adapter):
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    save_adapter(first, adapter)
    loaded = load_adapter(first)
    save_adapter(second, loaded)
    assert both_files(first) == both_files(second)
    assert loaded.delta.names == adapter.delta.names
    assert torch.equal(loaded.delta.indices, adapter.delta.indices)
    assert torch.equal(loaded.delta.values, adapter.delta.values.bfloat16().float())
    short = checkpoint.rounded(adapter)
    assert torch.equal(short.delta.values, loaded.delta.values)
    for name, tensor in adapter.head.items():
        stored = tensor.to(checkpoint.HEAD_TYPES[name]).float()
        assert torch.equal(loaded.head[name], stored) and torch.equal(short.head[name], stored)
    assert loaded.head.keys() == short.head.keys() == adapter.head.keys()
    written = {"targets", "parts", "schema_version", "index_code", "digest"}
    assert {**loaded.card, **dict.fromkeys(written)} == {**adapter.card, **dict.fromkeys(written)}
    assert {path.name for path in first.iterdir()} == {CARD, WEIGHTS}


def test_another_process_writes_the_same_bytes_with_at_most_one_key_of_metadata(tmp_path):
    code = "import sys; from pathlib import Path; from kusabi.adapters.checkpoint import load_adapter, save_adapter; "
    code += "save_adapter(Path(sys.argv[2]), load_adapter(Path(sys.argv[1])))"
    away, here = tmp_path / "away", tmp_path / "a" / "deep" / "folder"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code, str(GOLDEN), str(away)], check=True, env=environment)
    save_adapter(here, load_adapter(GOLDEN))
    assert both_files(here) == both_files(away)
    weights = both_files(here)[0]
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert len(header.pop("__metadata__", {})) <= 1
    assert header.keys() == {"indices", "values", *(f"prototypes.{name}" for name in checkpoint.HEAD_TYPES)}


def test_an_entry_takes_at_most_three_and_a_half_bytes_at_a_density_of_one_in_a_thousand():
    sizes = {f"vision.{i}.weight": 1_000_000 for i in range(4)}
    delta = SparseDelta({name: random_support(size, 1000, 0, name) for name, size in sizes.items()})
    weights, _ = pack(Adapter((delta,), {}, card_of(sizes, "text")))
    assert len(weights) / len(delta) <= 3.5


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([WEIGHTS, CARD]), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3), st.data()
)
def test_flipped_or_missing_bytes_give_the_identical_adapter_or_an_error(tmp_path_factory, file, flips, data):
    folder = tmp_path_factory.mktemp("hostile")
    for name in (WEIGHTS, CARD):
        shutil.copy(GOLDEN / name, folder / name)
    content = bytearray((folder / file).read_bytes())
    for place, bits in flips:
        content[round(place * (len(content) - 1))] ^= bits
    if not flips:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    (folder / file).write_bytes(content)
    try:
        loaded = load_adapter(folder)
    except CheckpointError as refusal:
        assert str(folder) in str(refusal)
    else:
        assert pack(loaded) == pack(load_adapter(GOLDEN))


@pytest.mark.parametrize("missing", [WEIGHTS, CARD])
def test_a_missing_file_is_named(tmp_path, missing):
    shutil.copytree(GOLDEN, tmp_path / "adapter")
    (tmp_path / "adapter" / missing).unlink()
    with pytest.raises(CheckpointError) as refusal:
        load_adapter(tmp_path / "adapter")
    assert str(tmp_path / "adapter" / missing) in str(refusal.value)
    with pytest.raises(CheckpointError, match="is this an adapter folder"):
        load_adapter(tmp_path / "nowhere")


def test_the_files_of_two_adapters_are_not_one_adapter(tmp_path):
    adapter = load_adapter(GOLDEN)
    save_adapter(tmp_path, adapter)
    adapter.delta.values.data.neg_()
    (tmp_path / WEIGHTS).write_bytes(pack(adapter)[0])  # as if killed between the two files
    with pytest.raises(CheckpointError, match="changed after saving"):
        load_adapter(tmp_path)


HOPELESS = ["", "{", "[]", "null", "[" * 100_000, '{"a": ' + "1" * 5000 + "}", b"\xff\xfe{}", '{"schema_version": 3}']


@pytest.mark.parametrize("text", HOPELESS, ids=range(len(HOPELESS)))
def test_a_card_that_is_none_is_refused(tmp_path, text):
    shutil.copy(GOLDEN / WEIGHTS, tmp_path / WEIGHTS)
    (tmp_path / CARD).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=r"adapter\.json: (not valid JSON|no card of an adapter|schema version)"):
        load_adapter(tmp_path)


WRONG_FIELDS = """
    targets: []; targets: {"a": 1}; targets.1: 3; targets.0.tensor: ["w"]; targets.0.size: 1180591620717411303424;
    targets.0.size: 128.5; targets.1.size: -1; targets.2.entries: "4"; targets.2.entries: true; index_code: 5;
    index_code.k: 64; index_code.k: null; backbone: null; backbone.tensors: ["w"]; classes: 2; embedding_size: -3;
    head: "prototypes"; head.kind: "oracle"; prompts: null; prompts: [["a"]]; prompts: ["a", "b"]; prompts.1: [];
    prompts.0: [3]; data: null; data: {"name": null}; data: {"support_pictures": "3"}; spec: null; spec: [];
    spec: {"backbone": null}; spec: {"backbone": {"dtype": 32}}; spec: {"data": {"templates": "a {}"}};
    targets.0.layer: null; targets.0.tower: 1; backbone.revision: 5; backbone.preprocessing: null;
    backbone.preprocessing.size: "224"; backbone.preprocessing.fit: "stretch"
"""


@pytest.mark.parametrize("wrong", [wrong.strip() for wrong in WRONG_FIELDS.split(";")])
def test_a_card_with_a_wrong_field_is_refused_with_its_path(damaged, wrong):
    path, value = wrong.split(": ", 1)

    def change(card):
        *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in above:
            card = card[key]
        card[last] = json.loads(value)

    with pytest.raises(CheckpointError) as refusal:
        load_adapter(damaged(change))
    assert f"'{path}" in str(refusal.value)


def test_all_faults_of_a_card_are_listed_at_once(damaged):
    with pytest.raises(CheckpointError) as refusal:
        load_adapter(damaged(lambda card: (card.pop("classes"), card.pop("kind"), card["index_code"].update(k=-1))))
    assert all(f"'{path}'" in str(refusal.value) for path in ("classes", "kind", "index_code.k"))
    with pytest.raises(CheckpointError, match=r"listed twice as target: vision\.2\.linear1\.weight"):
        load_adapter(damaged(lambda card: card["targets"][2].update(tensor="vision.2.linear1.weight")))


def test_all_wrong_tensors_are_listed_at_once(damaged):
    def spoil(tensors):
        tensors["values"][2] = torch.nan
        tensors["prototypes.offset"][0] = torch.inf
        tensors["prototypes.displacement"] = torch.zeros(3, 2, dtype=torch.bfloat16)
        tensors["prototypes.log_gain"] = torch.zeros((), dtype=torch.float16)
        tensors["backdoor"] = torch.zeros(1)
        del tensors["indices"]

    with pytest.raises(CheckpointError) as refusal:
        load_adapter(damaged(change_tensors=spoil))
    for complaint in (
        "'values' holds values that are not finite",
        "'prototypes.displacement' is torch.bfloat16 (3, 2), expected torch.bfloat16 (2, 3)",
        "'prototypes.log_gain' is torch.float16 (), expected torch.float32 ()",
        "'backdoor' does not belong here",
        "'prototypes.offset' holds values that are not finite",
        "'indices' is missing",
    ):
        assert complaint in str(refusal.value)


@pytest.mark.parametrize(("kind", "shape", "size"), [("F4", [2], 1), ("?", [1], 1), ("U8", [0, 2**62, 2**62], 0)])
def test_a_hostile_header_is_refused(tmp_path, kind, shape, size):
    header = json.dumps({"values": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    shutil.copy(GOLDEN / CARD, tmp_path / CARD)
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_adapter(tmp_path)


def test_positions_that_are_damaged_or_outside_the_listed_targets_are_refused(damaged):
    def shifted(card):
        card["targets"][0]["entries"], card["targets"][1]["entries"] = 2, 1

    def shrunk(card):
        card["targets"][2]["size"] = 100

    for change in (shifted, shrunk):
        with pytest.raises(CheckpointError, match="do not fall into the targets"):
            load_adapter(damaged(change))
    for code in ([], [0] * 7, [255] * 7):
        with pytest.raises(CheckpointError, match=r"adapter\.safetensors: index code is damaged"):
            load_adapter(damaged(change_tensors=lambda t, code=code: t.update(indices=torch.tensor(code).byte())))


def test_a_failing_save_leaves_the_adapter_that_was_there(tmp_path, monkeypatch):
    adapter = load_adapter(GOLDEN)
    save_adapter(tmp_path, adapter)
    before = both_files(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        save_adapter(tmp_path, Adapter(adapter.parts, {}, {**adapter.card, "metric": float("nan"), "head": None}))
    assert both_files(tmp_path) == before

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    adapter.delta.values.data.neg_()
    with pytest.raises(FileError, match="No space"):
        save_adapter(tmp_path, adapter)
    assert both_files(tmp_path) == before


OWN, PREPARED = {"b": "22", "a": "11", "c": "33"}, {"size": 224, "fit": "pad", "mean": [0.5, 0.5, 0.5]}
MADE_FOR = {"backbone": {"source": "acme/eye", "digest": "d" * 64, "tensors": OWN, "preprocessing": PREPARED}}
OTHERS = [
    ({**OWN, "c": "x", "b": "x"}, "tensor 'b' differs"),
    ({"c": "33", "b": "x"}, "tensor 'a' is missing from it"),
    ({**OWN, "aa": "44"}, "tensor 'aa' is new in it"),
]


@pytest.mark.parametrize(("tensors", "complaint"), OTHERS)
def test_another_backbone_is_refused_naming_the_first_tensor_that_differs(tensors, complaint):
    with pytest.raises(AdapterError) as refusal:
        check_backbone(MADE_FOR, "e" * 64, tensors, PREPARED)
    assert complaint in str(refusal.value)
    assert all(text in str(refusal.value) for text in ("acme/eye", "d" * 12, "e" * 12))


def test_pictures_prepared_otherwise_are_refused_naming_every_difference():
    check_backbone(MADE_FOR, "d" * 64, OWN, PREPARED)
    with pytest.raises(AdapterError) as refusal:
        check_backbone(MADE_FOR, "d" * 64, OWN, {**PREPARED, "size": 196, "fit": "crop"})
    assert "size 224, not 196" in str(refusal.value) and "fit 'pad', not 'crop'" in str(refusal.value)
    assert "mean" not in str(refusal.value)
