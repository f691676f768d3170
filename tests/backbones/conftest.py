from functools import cache
from pathlib import Path

import pytest
import torch

from kusabi.backbones.dual_encoder import load_backbone

KINDS = (
    "clip",
    "siglip",
    "siglip2",
    "metaclip_2",
    "altclip",
    "chinese_clip",
    "align",
    "dinov2+bert",
    "dinov2_with_registers+xlm-roberta",
    "vit+roberta",
    "deit+camembert",
    "clip_vision_model+bert",
    "siglip_vision_model+bert",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def loaded(tiny):
    """Kind and options -> backbone, loaded once for all tests: they may not change it."""
    return cache(lambda kind, **options: load_backbone("mini" if kind == "mini" else tiny(kind), **options))


@pytest.fixture
def copied(tiny, tmp_path: Path):
    """Kind -> folder that the test may spoil."""

    def copy(kind: str = "clip") -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for file in tiny(kind).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return copy
