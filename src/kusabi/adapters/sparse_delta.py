"""The flagship: K trainable entries added to frozen weights, all in one flat parameter."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from kusabi.errors import AdapterError, listed


class SparseDelta(nn.Module):
    """Adds ``values`` at fixed ``indices`` of named weights; zero at birth.

    One flat fp32 parameter holds every value, an offset table says which slice belongs to which weight. Indices are
    flat positions inside their own weight, rising, and survive casts of the module because they are int32 buffers.

    Args:
        supports: Weight name -> flat positions, shape ``(k,)``, integer, strictly rising. Kept in the given order.
    """

    values: nn.Parameter
    indices: Tensor

    def __init__(self, supports: Mapping[str, Tensor]) -> None:
        super().__init__()
        if not supports:
            raise AdapterError("a sparse delta needs at least one target")
        for name, support in supports.items():
            if support.ndim != 1 or not bool((support[1:] > support[:-1]).all()) or bool((support < 0).any()):
                raise AdapterError(f"{name}: indices must be one rising row of positions without repeats")
        self.names = tuple(supports)
        bounds = torch.tensor([0, *(len(support) for support in supports.values())]).cumsum(0).tolist()
        self.slices = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(self.names)}
        self.values = nn.Parameter(torch.zeros(bounds[-1], dtype=torch.float32))
        self.register_buffer("indices", torch.cat([s.to(torch.int32) for s in supports.values()]))

    def __len__(self) -> int:
        return self.values.numel()

    def parts(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Per target: name, indices ``(k,)`` int32, values ``(k,)`` as a view of the flat parameter's data."""
        for name, part in self.slices.items():
            yield name, self.indices[part], self.values.data[part]

    def extra_repr(self) -> str:  # noqa: D102 (torch's own hook)
        return f"entries={len(self)}, targets={len(self.names)}"


def check_fits(delta: SparseDelta, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse a delta whose targets are missing or too small, listing all of them.

    Raises:
        AdapterError: With every mismatch.
    """
    wrong = []
    for name, indices, _ in delta.parts():
        if name not in parameters:
            wrong.append(f"{name}: the model has no such weight")
        elif len(indices) and int(indices[-1]) >= parameters[name].numel():
            wrong.append(f"{name}: index {int(indices[-1])} is outside its {parameters[name].numel()} entries")
    if wrong:
        raise AdapterError("the adapter does not fit this model: " + listed(wrong, "; "))
