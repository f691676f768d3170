"""A frozen two-tower model: pictures and texts become unit vectors of one space."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from kusabi.backbones.input_sizes import InputSizes
from kusabi.backbones.preprocessing import Preprocessing

TEXTS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Backbone:
    """A model in ``eval()`` whose weights never learn, with all that belongs to it.

    The logits of the model's own forward are ``scale * embed_images(p) @ embed_texts(t).T + bias``.

    ``digest`` and ``tensor_digests`` are of the tensors as stored in the file; the latter by their names in
    ``module``. ``blocks`` names each tower's blocks from bottom to top. ``text_length`` is in tokens; ``full_length``
    models are always shown that many. ``class_token`` vision towers pool their first token and no other.
    """

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    source: str
    family: str
    revision: str | None
    licence: str | None
    preprocessing: Preprocessing
    digest: str
    tensor_digests: Mapping[str, str]
    blocks: Mapping[str, tuple[str, ...]]
    scale: float
    bias: float
    similarity: Literal["softmax", "sigmoid"]
    device: torch.device
    dtype: torch.dtype
    input_sizes: InputSizes
    text_length: int
    full_length: bool
    class_token: bool

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Unit rows, shape ``(B, D)``, float32; differentiable.

        Args:
            pixels: As ``preprocessing.pixels`` makes them, shape ``(B, 3, S, S)`` of any size the model takes.
        """
        model: Any = self.module
        output = model.get_image_features(**self._vision_inputs(pixels.to(self.device, self.dtype)))
        return F.normalize(output.pooler_output.float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit rows, shape ``(N, D)``, float32; differentiable. Texts beyond ``text_length`` are cut."""
        assert texts, "at least one text"
        model: Any = self.module
        accepted = inspect.signature(model.get_text_features).parameters
        rows = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = self.tokenizer(
                list(texts[start : start + TEXTS_AT_ONCE]),
                padding="max_length" if self.full_length else "longest",
                truncation=True,
                max_length=self.text_length,
                return_tensors="pt",
            )
            inputs = {name: tensor.to(self.device) for name, tensor in tokens.items() if name in accepted}
            rows.append(F.normalize(model.get_text_features(**inputs).pooler_output.float(), dim=-1))
        return torch.cat(rows)

    def card(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "source": self.source,
            "family": self.family,
            "revision": self.revision,
            "licence": self.licence,
            "digest": self.digest,
            "preprocessing": self.preprocessing.to_json(),
            "parameters": sum(parameter.numel() for parameter in self.module.parameters()),
            "layers": {tower: len(names) for tower, names in self.blocks.items()},
        }

    def _vision_inputs(self, pixels: Tensor) -> dict[str, Any]:
        sizes = self.input_sizes
        if sizes.resizing == "patches":
            return _patches(pixels, sizes.step)
        if sizes.resizing == "flag":
            return {
                "pixel_values": pixels,
                "interpolate_pos_encoding": tuple(pixels.shape[2:]) != (sizes.own, sizes.own),
            }
        return {"pixel_values": pixels}


def _patches(pixels: Tensor, step: int) -> dict[str, Tensor]:
    """Inputs of NaFlex towers: flattened patches of a whole picture, none of them padding."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // step, width // step
    grid = pixels.reshape(batch, channels, rows, step, columns, step).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": grid.reshape(batch, rows * columns, step * step * channels),
        "pixel_attention_mask": torch.ones(batch, rows * columns, dtype=torch.int32, device=pixels.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * batch, device=pixels.device),
    }
