"""The vision tower: the first layers of a published DINOv2-small encoder, read from its ONNX file by node name."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS, WIDTH, PATCH, HEADS, POSITIONS = 8, 384, 14, 6, 16
EMBEDDING = 384  # the sentence encoder's width, which both towers share
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RENAMED = {  # the old names inside the file -> the names of today's modules, in this order
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read the encoder's tensors under the file's own dotted names, linear weights as ``(out, in)``.

    The exporter left the names of biases and norms, but made linear weights anonymous and transposed:
    the node that uses one tells whose it is. Positions were folded into two constants.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    raw = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    named = {n.removeprefix("backbone."): t for n, t in raw.items() if n.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and node.input[1] in raw:
            owner = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            named[f"{owner}.weight"] = raw[node.input[1]].T.contiguous()
    positions = [t for n, t in raw.items() if t.dim() == 3 and t.shape[0] == 1 and not n.startswith("backbone.")]
    named["embeddings.position_embeddings"] = torch.cat(sorted(positions, key=lambda t: t.shape[1]), dim=1)
    return named


def vision_config():
    """The configuration of the exported vision tower: 16 x 16 positions, exact at 224 px."""
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=POSITIONS * PATCH,
        patch_size=PATCH,
        use_mask_token=False,
    )


def build_vision(path: Path) -> nn.Module:
    """Assemble the tower with its first layers filled from the file and a fresh final norm."""
    from transformers import Dinov2Model

    model = Dinov2Model(vision_config())
    tensors = {name: t for old, t in read_onnx(path).items() if (name := _today(old)) in model.state_dict()}
    tensors["embeddings.position_embeddings"] = shrink(tensors["embeddings.position_embeddings"], POSITIONS)
    for name in ("layernorm.weight", "layernorm.bias"):  # the file's belongs to layer 12
        tensors[name] = model.state_dict()[name]
    model.load_state_dict(tensors)
    return model


def _today(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def shrink(positions: Tensor, side: int) -> Tensor:
    """Resample position embeddings ``(1, 1 + n * n, width)`` to ``side`` x ``side``."""
    old = round((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class Student(nn.Module):
    """The vision tower with its linear head, and the heads that only training needs.

    Args:
        tower: The encoder.
        attributes: How many logits the drawn pictures' attributes need.
    """

    def __init__(self, tower: nn.Module, attributes: int):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(WIDTH, EMBEDDING, bias=False)
        self.attributes = nn.Linear(EMBEDDING, attributes)
        self.spots = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1))
        self.log_scale = nn.Parameter(torch.tensor(3.7))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pixels ``(batch, 3, side, side)`` into ``(batch, 384)``, not yet of unit length."""
        return self.head(self.tower(pixel_values=pixels).pooler_output)

    def with_spots(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed, and tell for every patch whether something is wrong there, ``(batch, patches)``.

        Patches are read two layers below the top, so that the class token can still collect what they found.
        """
        output = self.tower(pixel_values=pixels, output_hidden_states=True)
        patches = output.hidden_states[LAYERS - 2][:, 1:]
        return self.head(output.pooler_output), self.spots(patches).squeeze(-1)


def freeze_lower(student: Student, layers: int) -> None:
    """Freeze the embeddings and the first layers: general vision is there already."""
    for name, parameter in student.tower.named_parameters():
        index = int(name.split(".")[2]) if name.startswith("encoder.layer.") else -1
        parameter.requires_grad = name.startswith("layernorm") or index >= layers
