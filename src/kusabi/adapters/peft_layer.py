"""PEFT's view of a sparse delta: one adapted ``nn.Linear`` with the entries of every adapter that sits on it.

Requirements this file exists for:
- indices are int32 buffers: they are saved, loaded and moved with the model, by PEFT and by transformers, and no cast
  of a model touches them;
- merging keeps the overwritten originals, and unmerging writes them back: bitwise, in any dtype, however often;
- indices come out of files that this library need not have read: they are looked at before their first use.
"""

import warnings
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from kusabi.adapters.fold import folded
from kusabi.adapters.folded_linear import Part, folded_linear, joined
from kusabi.errors import AdapterError


class KusabiLinear(nn.Module, BaseTunerLayer):
    """A frozen ``nn.Linear`` and, per adapter, ``k`` fp32 values at ``k`` flat positions of its weight.

    Args:
        base_layer: The layer that stays as it is.
        path: Its name in the model, for messages.
    """

    adapter_layer_names = ("kusabi_values",)
    other_param_names = ("kusabi_indices",)

    def __init__(self, base_layer: nn.Linear, path: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.path = path
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.kusabi_values = nn.ParameterDict()
        self.kusabi_indices = BufferDict(persistent=True)
        self.merged_adapters: list[str] = []
        self._originals: Part | None = None  # of all merged entries
        self._seen: dict[str, tuple[int, int]] = {}
        self._disable_adapters = False
        self._active_adapter = []

    def update_layer(self, adapter_name: str, indices: Tensor, *, inference_mode: bool = False) -> None:
        """Take one more adapter, zero at birth.

        Args:
            adapter_name: As PEFT names it.
            indices: ``(k,)`` flat positions, rising; all -1 where a file is about to bring them.
            inference_mode: Whether its values stay frozen.
        """
        place = self.base_layer.weight.device
        self.kusabi_indices[adapter_name] = indices.to(place, torch.int32, copy=True)
        self.kusabi_values[adapter_name] = nn.Parameter(torch.zeros(len(indices), device=place))
        self.set_adapter(self.active_adapters or [adapter_name], inference_mode=inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the frozen layer, with the active adapters in its weight."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.kusabi_values]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        layer = self.base_layer
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            warnings.warn(
                f"{self.path}: hooks on the frozen layer do not run; put them on the adapted one", stacklevel=2
            )
        return folded_linear(x, layer.weight, layer.bias, joined([self._part(name) for name in names]))

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write adapters into the frozen weight, the active ones where none are named; originals are kept.

        Raises:
            ValueError: If ``safe_merge`` and a merged entry would not be finite. Nothing is written then.
        """
        wanted = check_adapters_to_merge(self, adapter_names)
        names = [*self.merged_adapters, *(name for name in wanted if name in self.kusabi_values)]
        if len(names) == len(self.merged_adapters):
            return
        weight = self.base_layer.weight.data
        known, entries = self._originals or (torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        known = known.to(weight.device)  # stays among the positions, whatever was loaded since
        kept = (known, torch.zeros(len(known), device=weight.device))
        indices, values = joined([kept, *(self._part(name) for name in names)])
        originals = weight.take(positions := indices.long())
        originals[torch.searchsorted(positions, known)] = entries.to(originals)
        merged = folded(originals, values)
        if safe_merge and not bool(merged.isfinite().all()):
            raise ValueError(f"{self.path}: the merged weight would not be finite; adapters {names} seem to be broken")
        self._originals = (positions, originals)
        weight.put_(positions, merged)
        self.merged_adapters[:] = names

    @torch.no_grad()
    def unmerge(self) -> None:
        """Write the originals back: the weight is bitwise as before the first merge."""
        if self._originals is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        weight = self.base_layer.weight.data
        positions, originals = self._originals
        weight.put_(positions.to(weight.device), originals.to(weight))
        self._originals = None
        self.merged_adapters.clear()

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """The dense fp32 update of one adapter, of the weight's shape."""
        indices, values = self._part(adapter_name)
        dense = torch.zeros(self.base_layer.weight.numel(), device=values.device)
        return dense.index_put((indices.long(),), values.float()).view(self.base_layer.weight.shape)

    def _part(self, name: str) -> Part:
        indices: Any = self.kusabi_indices[name]
        if not torch.compiler.is_compiling():
            state = (id(indices), 0 if indices.is_inference() else indices._version)
            if self._seen.get(name) != state:
                _check(indices, self.base_layer.weight.numel(), f"{self.path}, adapter '{name}'")
                self._seen[name] = state
        return indices, self.kusabi_values[name]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """To the layer's device and never to its dtype: values stay fp32, indices whole numbers."""
        place = self.base_layer.weight.device if device is None else device
        values = self.kusabi_values.get(adapter_name)
        if values is not None and values.device.type != "meta":
            values.data = values.data.to(place)
            indices: Any = self.kusabi_indices[adapter_name]
            self.kusabi_indices[adapter_name] = indices.to(place)


def _check(indices: Tensor, size: int, where: str) -> None:
    if bool((indices == -1).all()):
        raise AdapterError(
            f"{where}: its entries were never loaded; a configuration with stored=True goes with the folder it was "
            "read from: use PeftModel.from_pretrained, or set stored=False for a new adapter"
        )
    if bool((indices[1:] <= indices[:-1]).any() | (indices < 0).any() | (indices >= size).any()):
        raise AdapterError(f"{where}: indices do not rise within the {size} entries of the weight; the file is damaged")
