import json
import sys
import types

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from kusabi.adapters import onnx_folder
from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.onnx_folder import export_onnx
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.backbones.preprocessing import Preprocessing, pixels
from kusabi.errors import AdapterError

SIDE = 8
CLASSES = ["x", "ÿ", "z"]


def card(size=SIDE):
    preprocessing = {"size": size, "fit": "pad", "mean": [0.5] * 3, "std": [0.5] * 3, "resample": 3}
    backbone = {"source": "owner/tiny", "preprocessing": preprocessing}
    return {"classes": CLASSES, "prompts": [["a"]] * 3, "backbone": backbone}


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vision = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Flatten(), nn.Linear(24, 12), nn.GELU(), nn.Linear(12, 5))
        self.text = nn.Linear(300, 300)

    def embed(self, pixels):
        return F.normalize(self.vision(pixels), dim=-1)


def parts():
    module = Towers().eval().requires_grad_(False)
    delta = SparseDelta({"vision.2.weight": torch.arange(0, 288, 5), "vision.4.weight": torch.tensor([0, 7])})
    delta.values.data = torch.randn(len(delta), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    prototypes = Prototypes(F.normalize(torch.randn(3, 5), dim=-1), 30.0, -2.0)
    prototypes.displacement.data.normal_()
    prototypes.offset.data.normal_()
    prototypes.log_gain.data.fill_(0.3)
    return module, delta, prototypes


def written(folder, **changes):
    module, delta, prototypes = parts()
    embed = changes.get("embed", module.embed)
    export_onnx(folder, module, embed, Adapter((delta,), {}, changes.get("card", card())), prototypes)
    return module, delta, prototypes


@pytest.fixture(scope="module")
def runtime():
    for name in onnx_folder.NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed")
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(runtime, tmp_path_factory):
    """One graph for all: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("onnx") / "out"
    return folder, *written(folder)


def test_onnxruntime_gives_the_logits_of_the_adapter_for_any_number_of_pictures(runtime, exported):
    folder, module, delta, prototypes = exported
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape[1:]) for given in session.get_inputs()] == [("pixel_values", [3, SIDE, SIDE])]
    for batch in (1, 2, 7):
        pixels = torch.randn(batch, 3, SIDE, SIDE)
        with torch.no_grad(), attached(module, delta):
            wanted = prototypes(module.embed(pixels))
        frozen = prototypes(module.embed(pixels))
        (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
        found = torch.from_numpy(found)
        spread = (wanted.amax(1) - wanted.amin(1)).max()
        assert (found - wanted).abs().max() <= 1e-5 * spread
        assert (found - frozen).abs().max() > 1e-2 * spread, "the adapter is in it"
    fresh, *_ = parts()
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), fresh.parameters(), strict=True))


def test_the_folder_holds_what_is_needed_and_nothing_else(exported):
    folder = exported[0]
    names = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert names.keys() == {"README.md", "kusabi.json", "model.onnx"}
    assert names["model.onnx"] < 50_000, "the text tower alone has 360 kB"
    graph = (folder / "model.onnx").read_bytes()
    assert b".py" not in graph and b"/src/" not in graph, "no paths of the machine that wrote it"
    facts = json.loads((folder / "kusabi.json").read_text("utf-8"))
    assert facts["classes"] == CLASSES and facts["backbone"]["preprocessing"] == card()["backbone"]["preprocessing"]
    assert facts["onnx"]["input"] == "pixel_values" and facts["onnx"]["checked_difference"] <= 1e-5


def test_a_graph_that_answers_otherwise_never_leaves(exported, tmp_path, monkeypatch):
    graph = (exported[0] / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_folder, "_write_graph", lambda path, model, shown: path.write_bytes(graph))
    module, delta, prototypes = parts()
    delta.values.data[3] += 0.1
    with pytest.raises(
        AdapterError, match=r"onnxruntime is off by .*e-0[123] of the spread of the logits; not written"
    ):
        export_onnx(tmp_path / "out", module, module.embed, Adapter((delta,), {}, card()), prototypes)
    monkeypatch.setattr(onnx_folder, "_write_graph", lambda path, model, shown: path.write_bytes(graph[:-400]))
    with pytest.raises(AdapterError, match="does not run in onnxruntime"):
        written(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_models_that_make_no_graph_are_refused_in_one_line(runtime, tmp_path):
    module, *_ = parts()

    def by_content(pixels):
        return module.embed(pixels if pixels.sum().item() > 0 else -pixels)

    def counting(pixels):
        return module.embed(torch.stack([pixels[i] for i in range(len(pixels))]))

    with pytest.raises(AdapterError, match=r"cannot be written as ONNX \(.+\); export it as merged instead$"):
        written(tmp_path / "out", embed=by_content)
    with pytest.raises(AdapterError, match=r"a Towers counts the pictures .* exactly 2 of them"):
        written(tmp_path / "out", embed=counting)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_of_other_classes_is_refused(runtime, tmp_path):
    with pytest.raises(AdapterError, match="the classifier has 3 classes, the card names 2"):
        written(tmp_path / "out", card={**card(), "classes": ["x", "y"]})


def test_what_is_missing_is_named_before_anything_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_folder, "find_spec", lambda name: None if name != "onnx" else name)
    with pytest.raises(
        AdapterError, match=r"needs onnxscript, onnxruntime, not installed here; pip install 'kusabi\[onnx"
    ):
        written(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_the_readme_prepares_pictures_bitwise_as_training_did(tmp_path, monkeypatch, fit):
    stub = types.ModuleType("onnxruntime")
    stub.InferenceSession = lambda path, providers: None
    monkeypatch.setitem(sys.modules, "onnxruntime", stub)
    prepared = Preprocessing(24, fit, (0.48, 0.45, 0.4), (0.26, 0.25, 0.27), int(Image.Resampling.BICUBIC))
    facts = {"classes": CLASSES, "backbone": {"preprocessing": prepared.to_json()}}
    (tmp_path / "kusabi.json").write_text(json.dumps(facts))
    code = onnx_folder._readme("owner/tiny", fit).replace("this folder", str(tmp_path)).split("```python\n")[1]
    exec(code.split("```")[0], scope := {})
    for sides in ((24, 24), (200, 61), (40, 91), (7, 5), (1, 300)):
        drawn = torch.randint(0, 256, (sides[1], sides[0], 3), generator=torch.Generator().manual_seed(0))
        Image.fromarray(drawn.to(torch.uint8).numpy()).save(tmp_path / "picture.png")
        wanted = pixels([Image.open(tmp_path / "picture.png")], prepared)[0]
        assert torch.equal(torch.from_numpy(scope["pixels"](tmp_path / "picture.png").copy()), wanted), sides
