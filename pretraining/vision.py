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

    def forward(self, pixels: Tensor, keep: int | None = None) -> Tensor:
        """Embed normalised pixels ``(batch, 3, side, side)`` into ``(batch, 384)``, not yet of unit length.

        Args:
            pixels: The pictures.
            keep: Encode only so many patches of each, those with the most contrast: of an icon the ground is dropped.
        """
        hidden = self.tower.embeddings(pixels)
        if keep is not None:
            hidden = _busiest(hidden, pixels, keep)
        return self._top(self._lower(hidden))

    def with_spots(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed, and tell for every patch whether something is wrong there, ``(batch, patches)``.

        Patches are read two layers below the top, so that the class token can still collect what they found.
        """
        below = self._lower(self.tower.embeddings(pixels))
        return self._top(below), self.spots(below[:, 1:]).squeeze(-1)

    def _lower(self, hidden: Tensor) -> Tensor:
        for layer in self.tower.encoder.layer[: LAYERS - 2]:
            hidden = layer(hidden)
        return hidden

    def _top(self, hidden: Tensor) -> Tensor:
        """The last two layers; of the last one only the class token is wanted, so only that is computed."""
        before_last, last = self.tower.encoder.layer[LAYERS - 2 : LAYERS]
        hidden = before_last(hidden)
        seen, attention = last.norm1(hidden), last.attention
        q, k, v = (
            proj(of).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for proj, of in ((attention.q_proj, seen[:, :1]), (attention.k_proj, seen), (attention.v_proj, seen))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        token = hidden[:, :1] + last.layer_scale1(attention.o_proj(mixed))
        token = token + last.layer_scale2(last.mlp(last.norm2(token)))
        return self.head(self.tower.layernorm(token).squeeze(1))


def _busiest(hidden: Tensor, pixels: Tensor, keep: int) -> Tensor:
    """The class token and the ``keep`` tokens ``(batch, 1 + patches, width)`` whose patches vary most."""
    patches = F.unfold(pixels, PATCH, stride=PATCH).unflatten(1, (3, -1))  # (batch, 3, pixels of a patch, patches)
    contrast = patches.var(2).sum(1)
    rows = 1 + contrast.topk(keep, dim=1).indices
    rows = torch.cat([torch.zeros_like(rows[:, :1]), rows], 1)
    return hidden.gather(1, rows.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def freeze_lower(student: Student, layers: int) -> None:
    """Freeze the embeddings and the first layers: general vision is there already."""
    for name, parameter in student.tower.named_parameters():
        index = int(name.split(".")[2]) if name.startswith("encoder.layer.") else -1
        parameter.requires_grad = name.startswith("layernorm") or index >= layers
