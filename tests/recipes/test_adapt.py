import pytest
import torch
from safetensors.torch import load_file

from kusabi.backbones.digest import module_digest
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.recipes.adapt import adapt
from kusabi.recipes.stored_adapter import evaluate_stored
from kusabi.spec_file import build
from kusabi.training.precision import resolve


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["clip", "dinov2+bert"])
def test_a_backbone_of_any_dtype_is_adapted_and_what_was_stored_answers_the_same(tiny, tiles, tmp_path, kind, dtype):
    torch.set_num_threads(1)
    folder, run = tiles(train=3, test=4), tmp_path / "run"
    spec = build(
        {
            "backbone": {"backbone": str(tiny(kind)), "dtype": dtype},
            "adapter": {"density": 0.5},
            "data": {"shots": 2, "views": 2},
            "training": {"steps": 3, "learning_rate": 1e-2},
        }
    )
    before = load_backbone(str(tiny(kind)), dtype=dtype)
    found = adapt(str(folder), spec, run)
    assert found["training"]["precision"] == (resolve("auto", "cpu") if dtype == "float32" else dtype)
    assert load_file(run / "adapter" / "adapter.safetensors")["values"].count_nonzero() > 0
    again = evaluate_stored(run, str(folder))
    assert again["adapted"]["accuracy"] == found["adapted"]["accuracy"]
    assert module_digest(before.module) == module_digest(load_backbone(str(tiny(kind)), dtype=dtype).module)
