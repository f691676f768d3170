import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from kusabi.adapters.exported_head import READING, write_head
from kusabi.adapters.prototypes import Prototypes
from kusabi.errors import AdapterError

CARD = {
    "classes": ["良品", "scratch"],
    "prompts": [["良品の写真"], ["a scratch"]],
    "backbone": {"source": "a/b", "revision": "1", "digest": "ab", "preprocessing": {"size": 8}, "tensors": {"w": "1"}},
    "digest": "cd",
    "spec": {"secret": 1},
}


def head_of(classes=2, learned=True):
    draw = torch.Generator().manual_seed(0)
    head = Prototypes(torch.nn.functional.normalize(torch.randn(classes, 3, generator=draw), dim=-1), 17.3, -2.5)
    if learned:
        head.displacement.data = torch.randn(classes, 3, generator=draw)
        head.offset.data = torch.randn(classes, generator=draw) * 0.1
        head.log_gain.data = torch.tensor(0.3)
    return head


@pytest.mark.parametrize("learned", [True, False])
def test_the_five_lines_of_the_readme_give_the_very_logits_and_labels(tmp_path, learned):
    head, raw = head_of(learned=learned), torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) * 7
    write_head(tmp_path, head, CARD)
    model = SimpleNamespace(get_image_features=lambda pixel_values: SimpleNamespace(pooler_output=pixel_values))
    scope = {"folder": tmp_path, "model": model, "pixel_values": raw, "torch": torch, "json": json}
    scope["load_file"] = load_file
    lines = READING.split("```python\n")[1].split("```")[0]
    assert len(lines.strip().splitlines()) == 5
    exec(lines, scope)
    wanted = head(torch.nn.functional.normalize(raw, dim=-1))
    assert torch.equal(scope["logits"], wanted)
    assert scope["labels"] == [CARD["classes"][i] for i in wanted.argmax(1)]
    assert len(set(scope["labels"])) == 2, "a test that always sees one label shows nothing"


def test_the_files_hold_the_classifier_and_what_is_needed_to_use_it(tmp_path):
    head = head_of()
    write_head(tmp_path, head, CARD)
    tensors = load_file(tmp_path / "prototypes.safetensors")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "directions": (torch.float32, (2, 3)),
        "offset": (torch.float32, (2,)),
        "scale": (torch.float32, ()),
        "bias": (torch.float32, ()),
    }
    assert math.isclose(tensors["scale"].item(), 17.3 * math.exp(0.3), rel_tol=1e-6)
    assert json.loads((tmp_path / "kusabi.json").read_text("utf-8")) == {
        "schema_version": 1,
        "adapter": "cd",
        "backbone": {"source": "a/b", "revision": "1", "digest": "ab", "preprocessing": {"size": 8}},
        "classes": ["良品", "scratch"],
        "prompts": [["良品の写真"], ["a scratch"]],
    }


def test_a_classifier_of_other_classes_is_refused(tmp_path):
    with pytest.raises(AdapterError, match="3 classes, the card names 2"):
        write_head(tmp_path, head_of(classes=3), CARD)
    assert list(tmp_path.iterdir()) == []
