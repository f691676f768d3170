"""Exported folders are opened by a process in which Kusabi cannot be imported, by the code of their own READMEs."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

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

ELSEWHERE = """
import json, sys, warnings
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kusabi":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
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


def test_every_form_gives_the_answers_of_the_adapter_where_there_is_no_kusabi(tiny, tiles, tmp_path):
    torch.set_num_threads(1)
    forms = ["merged"]
    forms += ["shira"] if find_spec("peft") else []
    forms += ["onnx"] if all(map(find_spec, NEEDED)) else []
    spec = build(
        {
            "backbone": {"backbone": str(tiny("clip"))},
            "adapter": {"density": 0.05, "projections": ["mlp.fc1.*"], "tower": "both"},
            "data": {"shots": 2, "views": 2},
            "training": {"steps": 2, "learning_rate": 1e-2},
        }
    )
    folder = tiles(train=3, test=4)
    adapt(str(folder), spec, tmp_path / "run")
    with torch.no_grad():
        compare(tmp_path, folder, forms)


def compare(tmp_path, folder, forms):
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
    with attached(module, stored.adapter.delta):
        images = module.get_image_features(pixel_values=shown).pooler_output
        texts = module.get_text_features(input_ids=tokens).pooler_output
        logits = head(stored.backbone.embed_images(shown))
    assert not torch.equal(frozen, images)
    for form in forms:
        export(tmp_path / "run", tmp_path / form, form)
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path), *forms], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = load_file(tmp_path / "found.safetensors")
    for form in set(forms) - {"onnx"}:
        assert torch.equal(found[f"{form} images"], images), form
        assert torch.equal(found[f"{form} texts"], texts), form
        assert torch.equal(found[f"{form} logits"], logits), form
    if "onnx" in forms:
        assert torch.equal(found["onnx pixels"], shown)
        spread = (logits.amax(1) - logits.amin(1)).max()
        assert (found["onnx logits"] - logits).abs().max() <= 1e-5 * spread, "fp32 kernels of two libraries"
