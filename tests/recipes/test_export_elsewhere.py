"""Exported folders are opened by a process in which Kusabi cannot be imported, by the code of their own READMEs."""

import json
import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kusabi.adapters.attach import attached
from kusabi.adapters.onnx_folder import NEEDED
from kusabi.backbones.preprocessing import pixels
from kusabi.data.picture import open_picture
from kusabi.recipes.adapt import adapt
from kusabi.recipes.export import export
from kusabi.recipes.judge import classifier
from kusabi.recipes.stored_adapter import open_adapter
from kusabi.spec_file import build

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "peft", "safetensors", "onnxruntime", "pillow")
BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kusabi":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
"""
ELSEWHERE = """
import json, sys, warnings
from pathlib import Path

try:
    import kusabi
    sys.exit("kusabi is here")
except ModuleNotFoundError:
    pass
warnings.simplefilter("ignore")
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
torch.set_grad_enabled(False)
place = Path(sys.argv[1])
shown, found = load_file(place / "shown.safetensors"), {}
for form in sys.argv[2:]:
    readme = (place / form / "README.md").read_text("utf-8").replace("this folder", str(place / form))
    readme = readme.replace(*map(json.dumps, json.loads((place / "source.json").read_text())))
    scope = {"pixel_values": shown["pixel_values"]}
    for block in readme.split("```python\\n")[1:]:
        exec(block.split("```")[0], scope)
    if form == "onnx":
        files = json.loads((place / "files.json").read_text())
        found["onnx logits"] = torch.from_numpy(scope["logits"](files))
        found["onnx pixels"] = torch.stack([torch.from_numpy(scope["pixels"](file)) for file in files])
        continue
    found[form + " images"], found[form + " logits"] = scope["output"], scope["logits"]
    texts = scope["model"].get_text_features(input_ids=shown["input_ids"]).pooler_output
    found[form + " texts"] = texts
assert not any(name.partition(".")[0] == "kusabi" for name in sys.modules)
save_file({name: tensor.contiguous() for name, tensor in found.items()}, place / "found.safetensors")
"""


@pytest.fixture(scope="session")
def own_environment(tmp_path_factory):
    """An interpreter with the pinned packages that the READMEs name, and nothing of Kusabi."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *PACKAGES]
    ran = subprocess.run([*install, "-c", str(ROOT / "constraints.txt")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return python


SPARSE = {"density": 0.05, "projections": ["mlp.fc1.*"], "tower": "both"}


def asked(tiny, **tables):
    quick = {"data": {"shots": 2, "views": 2}, "training": {"steps": 2, "learning_rate": 1e-2}}
    return build({"backbone": {"backbone": str(tiny("clip"))}, **quick, **tables})


def test_every_form_gives_the_answers_of_the_adapter_where_there_is_no_kusabi(tiny, tiles, tmp_path):
    torch.set_num_threads(1)
    forms = ["merged"]
    forms += ["shira"] if find_spec("peft") else []
    forms += ["onnx"] if all(map(find_spec, NEEDED)) else []
    folder = tiles(train=3, test=4)
    adapt(str(folder), asked(tiny, adapter=SPARSE), tmp_path / "run")
    with torch.no_grad():
        compare(tmp_path, folder, forms, [sys.executable, "-c", BLOCKED + ELSEWHERE])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "forms", "exact"),
    [
        ({}, ["shira", "merged", "onnx"], True),
        ({"kind": "low_rank"}, ["lora"], False),  # PEFT computes it beside the layer, we in the weight
        ({"kind": "hybrid", "support_rule": "warm_up"}, ["merged"], True),
    ],
    ids=["sparse delta", "low rank", "hybrid"],
)
def test_every_form_gives_them_in_an_environment_of_its_own(
    adapter, forms, exact, own_environment, tiny, tiles, tmp_path
):
    torch.set_num_threads(1)
    folder = tiles(train=3, test=4)
    adapt(str(folder), asked(tiny, adapter={**SPARSE, "density": 0.2, **adapter}), tmp_path / "run")
    with torch.no_grad():
        compare(tmp_path, folder, forms, [str(own_environment), "-I", "-c", ELSEWHERE], exact)


def compare(tmp_path, folder, forms, program, exact=True):
    stored = open_adapter(tmp_path / "run")
    files = sorted(folder.rglob("test/*/*.png"))[:5]
    pictures = [open_picture(file) for file in files]
    wide = pictures[0].resize((61, 40))
    wide.save(tmp_path / "wide.png")
    files, pictures = [*files, tmp_path / "wide.png"], [*pictures, wide]
    source = [stored.adapter.card["backbone"]["source"], stored.source]  # the card has no path of the machine
    (tmp_path / "source.json").write_text(json.dumps(source))
    (tmp_path / "files.json").write_text(json.dumps([str(file) for file in files]))
    shown = pixels(pictures, stored.backbone.preprocessing)
    tokens = torch.tensor([[0, 5, 9, 3], [0, 12, 7, 3]])
    save_file({"pixel_values": shown, "input_ids": tokens}, tmp_path / "shown.safetensors")
    head, module = classifier(stored.backbone, stored.adapter), stored.backbone.module
    frozen = module.get_image_features(pixel_values=shown).pooler_output
    with attached(module, *stored.adapter.parts):
        images = module.get_image_features(pixel_values=shown).pooler_output
        texts = module.get_text_features(input_ids=tokens).pooler_output
        logits = head(stored.backbone.embed_images(shown))
    assert not torch.equal(frozen, images)
    for form in forms:
        export(tmp_path / "run", tmp_path / form, form)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    ran = subprocess.run(
        [*program, str(tmp_path), *forms], capture_output=True, text=True, check=False, cwd=elsewhere,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = load_file(tmp_path / "found.safetensors")
    for form in set(forms) - {"onnx"}:
        for name, ours in (("images", images), ("texts", texts), ("logits", logits)):
            theirs = found[f"{form} {name}"]
            assert torch.equal(theirs, ours) or not exact, f"{form} {name}"
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5 * float(ours.abs().max()))
    if "onnx" in forms:
        assert torch.equal(found["onnx pixels"], shown)
        spread = (logits.amax(1) - logits.amin(1)).max()
        assert (found["onnx logits"] - logits).abs().max() <= 1e-5 * spread, "fp32 kernels of two libraries"
