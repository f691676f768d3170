"""Kusabi's sparse delta as a method of PEFT: its configuration and its tuner, registered when this file is imported.

With it ``get_peft_model``, ``PeftModel.from_pretrained``, ``save_pretrained``, the ``Trainer`` of transformers and
``load_adapter`` of its models work on sparse deltas as they do on LoRA. ``import kusabi.adapters.peft_format`` is what
users write.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import register_peft_method
from torch import Tensor, nn

from kusabi.adapters.allocation import Allocation, share_budget
from kusabi.adapters.peft_layer import KusabiLinear
from kusabi.adapters.peft_names import end_to_end
from kusabi.adapters.peft_type import add_peft_type
from kusabi.adapters.plain_linears import weight_users
from kusabi.adapters.support import random_support, scores, top_support
from kusabi.errors import AdapterError, listed

SupportRule = Literal["random", "magnitude", "given"]
TYPE = add_peft_type("KUSABI")


@dataclass
class KusabiConfig(PeftConfig):
    """What PEFT knows of a sparse delta: a hard budget of entries over all targeted layers.

    Args:
        target_modules: Names of ``nn.Linear`` layers, a pattern, or ``all-linear``.
        exclude_modules: Names, or a pattern, of layers to leave alone.
        layers_to_transform: Numbers of the blocks to adapt, where names are given.
        layers_pattern: Name of the list of blocks, where it is not plain.
        modules_to_save: Further modules that are trained and saved whole.
        density: Trained share of the targeted weights.
        budget: Trained entries in all; overrides the density.
        allocation: How the budget is shared: ``size`` or ``uniform``.
        support_rule: Which entries: ``random``, ``magnitude``, or ``given`` ones.
        seed: Of the random rule; each layer has its own stream.
        indices: Layer -> rising flat positions, for ``given``.
        counts: Layer -> number of entries; filled in when the adapter is made.
        stored: The entries are in the file beside this configuration, and no rule is asked.

    Raises:
        AdapterError: Listing every field that makes no sense.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    density: float = 0.005
    budget: int | None = None
    allocation: Allocation = "size"
    support_rule: SupportRule = "random"
    seed: int = 0
    indices: dict[str, list[int]] | None = None
    counts: dict[str, int] | None = None
    stored: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = TYPE
        if self.indices is not None:
            self.indices = {path: torch.as_tensor(row).tolist() for path, row in self.indices.items()}
            self.target_modules = self.target_modules or end_to_end(self.indices)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT wants them
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        wrong = []
        if not 0 < self.density <= 1:
            wrong.append(f"density {self.density} is not within 0 and 1")
        if self.budget is not None and self.budget < 1:
            wrong.append(f"budget {self.budget} is below one entry")
        if self.allocation not in ("size", "uniform"):
            wrong.append(f"allocation {self.allocation!r} is not known; write size or uniform")
        if self.support_rule not in get_args(SupportRule):
            wrong.append(f"support_rule {self.support_rule!r} is not known; write {', '.join(get_args(SupportRule))}")
        elif not self.stored and (self.support_rule == "given") != (self.indices is not None):
            wrong.append("indices belong to support_rule 'given', and to no other")
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            wrong.append(
                "layers_to_transform goes with a list of names; a pattern says by itself which blocks it meets"
            )
        if self.layers_pattern and self.layers_to_transform is None:
            wrong.append("layers_pattern needs layers_to_transform")
        if self.stored and self.counts is None:
            wrong.append("stored entries need counts")
        if wrong:
            raise AdapterError(f"KusabiConfig: {listed(wrong, '; ')}")

    def to_dict(self) -> dict[str, Any]:
        """As it is written to disk: sets in order, and the entries left to the file beside it."""
        fields = {key: sorted(value) if isinstance(value, set) else value for key, value in super().to_dict().items()}
        return fields if self.counts is None else {**fields, "indices": None, "stored": True}


class KusabiModel(BaseTuner):
    """Puts ``KusabiLinear`` in the place of targeted layers."""

    prefix = "kusabi_"
    tuner_layer_cls = KusabiLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # nothing is targeted by default

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT's own, and then a guard: no call may name adapters per row and be answered by another one."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for module in (model, *model.children()):
            guarded = _refuse_adapter_names in module._forward_pre_hooks.values()
            if not guarded and any(isinstance(layer, KusabiLinear) for layer in module.modules()):
                module.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)

    def _prepare_model(  # type: ignore[override]
        self, peft_config: KusabiConfig, model: nn.Module
    ) -> None:
        """Decide on the entries of every layer before anything changes."""
        _maybe_include_all_linear_layers(peft_config, model)
        sizes = self._sizes(peft_config, model)
        if peft_config.stored:
            counts = peft_config.counts or {}
        elif peft_config.indices is not None:
            counts = {path: len(row) for path, row in peft_config.indices.items()}
        else:
            budget = peft_config.budget or max(1, round(peft_config.density * sum(sizes.values())))
            if budget > sum(sizes.values()) > 0:
                raise AdapterError(f"budget {budget} is larger than the {sum(sizes.values())} entries of the targets")
            counts = share_budget(peft_config.allocation, budget, sizes)
        wrong = [f"{path} is targeted, but no entries are given for it" for path in sizes if path not in counts]
        wrong += [f"entries are given for {path}, which is not targeted" for path in counts if path not in sizes]
        for path, count in counts.items():
            size = sizes.get(path, 1 << 31)
            row = torch.tensor((peft_config.indices or {}).get(path, []), dtype=torch.int64)
            if not 0 <= count <= size:
                wrong.append(f"{path}: {count} entries of {size}")
            elif bool((row[1:] <= row[:-1]).any() | (row < 0).any() | (row >= size).any()):
                wrong.append(f"{path}: indices do not rise within its {size} entries")
        if wrong:
            raise AdapterError(f"no adapter can be made: {listed(wrong, '; ')}")
        peft_config.counts = counts

    def _sizes(self, peft_config: KusabiConfig, model: nn.Module) -> dict[str, int]:
        """Layer -> entries of its weight, of all targets; none of them may be anything else than a plain layer."""
        users = weight_users(model)
        inner = tuple(f"{path}." for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer))
        sizes: dict[str, int] = {}
        wrong = []
        for path, layer in model.named_modules():
            if not path or path.startswith(inner) or not self._check_target_module_exists(peft_config, path):
                continue
            plain = layer.base_layer if isinstance(layer, KusabiLinear) else layer
            if type(plain) is not nn.Linear:  # the output layer of nn.MultiheadAttention would never be asked
                wrong.append(f"{path} is a {type(plain).__name__}, not a plain nn.Linear")
            elif users[id(plain.weight)] > 1:
                wrong.append(f"{path} shares its weight with another layer")
            elif isinstance(layer, KusabiLinear) and layer.merged:
                wrong.append(f"{path} has merged adapters; unmerge them first")
            else:
                sizes[path] = plain.weight.numel()
        if wrong:
            raise AdapterError(f"cannot be adapted: {listed(wrong, '; ')}; name other layers, or use exclude_modules")
        return sizes

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: KusabiConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if current_key not in (peft_config.counts or {}):
            raise AdapterError(f"no entries are given for {current_key}")
        if not (peft_config.counts or {})[current_key]:
            return  # the budget left nothing for it
        adapted = target if isinstance(target, KusabiLinear) else KusabiLinear(target, current_key)  # type: ignore[arg-type]
        indices = _support(peft_config, current_key, adapted.base_layer.weight)
        adapted.update_layer(adapter_name, indices, inference_mode=peft_config.inference_mode)
        if adapted is not target:
            if adapter_name not in self.active_adapters:
                adapted.requires_grad_(False)
            self._replace_module(parent, target_name, adapted, target)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        _refuse_adapter_names(self, args, kwargs)
        yield

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        plain: Any = super()._unload_and_optionally_merge(*args, **kwargs)
        for module in plain.modules():
            for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _refuse_adapter_names]:
                del module._forward_pre_hooks[key], module._forward_pre_hooks_with_kwargs[key]
        return plain


def _support(peft_config: KusabiConfig, path: str, weight: Tensor) -> Tensor:
    """Of one layer: the very entries that Kusabi's own rules choose for the weight of that name."""
    count, name = (peft_config.counts or {})[path], f"{path}.weight"
    if peft_config.stored:
        return torch.full((count,), -1)
    if peft_config.indices is not None:
        return torch.tensor(peft_config.indices[path])
    if peft_config.support_rule == "magnitude":
        return top_support(scores("magnitude", weight, name=name), count, name=name)
    return random_support(weight.numel(), count, peft_config.seed, name)


def _refuse_adapter_names(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if kwargs.get("adapter_names") is not None:
        raise AdapterError(
            "adapter_names: one batch cannot mix sparse adapters; group the rows by adapter and call set_adapter "
            "before each group, or use disable_adapter for rows without one"
        )


register_peft_method(name="kusabi", config_cls=KusabiConfig, model_cls=KusabiModel)
