"""What a bottleneck is beside its entries: plain data that a card carries, checked whole."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kusabi.errors import AdapterError, listed

TENSORS = ("down", "down_bias", "up", "up_bias")
_MOST = 2**31  # positions that an int32 index can tell apart


class Form(BaseModel):
    """Settings of down-up blocks; every point has one block.

    Attributes:
        widths: Point (path of the module after which a block is inserted) -> features there, d.
        size: Features of the bottleneck, b.
        placement: ``sequential``: on the sublayer's output (Houlsby et al., arXiv 1902.00751; Pfeiffer et al., arXiv
            2005.00247). ``parallel``: from the sublayer's input to its output (AdaptFormer, arXiv 2205.13535; He et
            al., arXiv 2110.04366).
        activation: Between down and up.
        scale: What a block's output is multiplied by.
        norm: Standardise the features that go down. There is no gain and no offset to train: ``down`` and ``down_bias``
            hold both already.
        biases: Whether there are any; they are never pruned.
        dropout: Share of the bottleneck's features that is hidden, in forwards announced by ``draw`` only.
        experts: Above 1, MoSA (arXiv 2312.02923): see ``experts``.
        seed: Of the experts' shares.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    widths: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    size: int = Field(ge=1, le=2**16)
    placement: Literal["sequential", "parallel"] = "sequential"
    activation: Literal["relu", "gelu", "silu"] = "relu"
    scale: float = Field(1.0, allow_inf_nan=False)
    norm: bool = False
    biases: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    experts: int = Field(1, ge=1, le=127)
    seed: int = 0

    def sizes(self, point: str) -> dict[str, int]:
        """Entries of each dense tensor of a point, by its full name, in their order."""
        width, size = self.widths[point], self.size
        counts = dict(zip(TENSORS, (size * width, size, width * size, width), strict=True))
        return {f"{point}.{tensor}": count for tensor, count in counts.items() if self.biases or "bias" not in tensor}

    def totals(self) -> tuple[int, int]:
        """Entries of all dense matrices, and of all biases."""
        weights = sum(2 * self.size * width for width in self.widths.values())
        return weights, sum(self.size + width for width in self.widths.values()) if self.biases else 0


def checked_form(settings: Mapping[str, Any]) -> Form:
    """Settings, checked.

    Raises:
        AdapterError: With everything that is wrong.
    """
    try:
        made = Form.model_validate(dict(settings))
    except ValidationError as error:
        wrong = [f"'{'.'.join(map(str, problem['loc']))}': {problem['msg']}" for problem in error.errors()]
        raise AdapterError(f"a bottleneck cannot be built: {listed(wrong, '; ')}") from None
    large = [point for point, width in made.widths.items() if width * made.size > _MOST]
    if large:
        raise AdapterError(f"a bottleneck cannot be built: more than {_MOST} entries a matrix at {listed(large)}")
    return made
