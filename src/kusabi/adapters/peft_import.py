"""Adapters from PEFT's folders: Kusabi's own and SHiRA exactly, LoRA exactly or as its largest entries.

A folder comes from anywhere: whatever of its settings or tensors would change the outcome and is not known here is
refused by name, never skipped.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from kusabi.adapters.low_rank import LowRank
from kusabi.adapters.peft_folder import KUSABI_INDICES, KUSABI_VALUES, OF_KUSABI, read_kusabi
from kusabi.adapters.peft_format import INDICES, VALUES
from kusabi.adapters.peft_names import CONFIG, PREFIX, WEIGHTS
from kusabi.adapters.plain_linears import plain_linears
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.support import top_support
from kusabi.errors import AdapterError, CheckpointError, listed

# Settings that say where the adapter came from or how it was trained, not what it computes.
_HARMLESS = {
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "runtime_config",
}  # fmt: skip
_OF_SHIRA = {"r", "mask_type", "random_seed", "init_weights"}
_OF_LORA = {
    "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "init_lora_weights",
    "megatron_core", "qalora_group_size", "eva_config", "ensure_weight_tying",
}  # fmt: skip
_SETTINGS = {"SHIRA": _OF_SHIRA, "LORA": _OF_LORA, "KUSABI": OF_KUSABI}
_LORA_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others subtract from the backbone's own weights
_TYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
LORA_A, LORA_B = "lora_A.weight", "lora_B.weight"


@dataclass(frozen=True, eq=False)
class Imported:
    """A delta for a backbone, and the share of the squared update that it holds: 1 where nothing was left out."""

    delta: SparseDelta
    kept: float


def import_peft(folder: Path, module: nn.Module, budget: int | None = None) -> Imported:
    """Read an adapter that PEFT saved.

    KUSABI comes over exactly, and so does SHIRA, its zero entries left out. The update of a LoRA (Hu et al., arXiv
    2106.09685) is dense: its ``budget`` largest entries over all layers are kept, ties to the earlier layer and the
    lower index, which is the sparse delta of the least squared error.

    Args:
        folder: With ``adapter_config.json`` and ``adapter_model.safetensors``.
        module: The backbone's module, as transformers loads it.
        budget: Entries to keep of a LoRA; None for the others.

    Raises:
        CheckpointError: If the folder is damaged or of a method or setting that cannot be read, naming all of them.
        AdapterError: If it does not fit the module, or the budget does not fit the method.
    """
    config = _read_config(folder)
    kind = config["peft_type"]
    if kind not in _SETTINGS:
        raise CheckpointError(f"{folder}: PEFT type {kind!r} cannot be read; {', '.join(_SETTINGS)} can")
    _check_settings(folder, config, _SETTINGS[kind])
    tensors = _read_tensors(folder / WEIGHTS)
    if kind == "LORA":
        layers = _by_layer(folder, tensors, (LORA_A, LORA_B), module)
        return _largest(folder, _low_rank(folder, config, layers), budget)
    if budget is not None:
        raise AdapterError(f"{folder}: a {kind} adapter is sparse already and is read exactly; leave the budget out")
    if kind == "SHIRA":
        return Imported(_shira(folder, config, _by_layer(folder, tensors, (VALUES, INDICES), module)), 1.0)
    layers = _by_layer(folder, tensors, (KUSABI_VALUES, KUSABI_INDICES), module)
    entries = ((layer.path, math.prod(layer.shape), *layer.tensors) for layer in layers)
    return Imported(read_kusabi(folder, config, entries), 1.0)


def import_lora(folder: Path, module: nn.Module) -> LowRank:
    """Read a LoRA that PEFT saved as what it is: its factors and its scale, exactly.

    Raises:
        CheckpointError: If the folder is damaged or of a method or setting that cannot be read, naming all of them.
    """
    config = _read_config(folder)
    if config["peft_type"] != "LORA":
        raise CheckpointError(f"{folder}: PEFT type {config['peft_type']!r} is no LORA; import_peft may read it")
    _check_settings(folder, config, _OF_LORA)
    return _low_rank(folder, config, _by_layer(folder, _read_tensors(folder / WEIGHTS), (LORA_A, LORA_B), module))


@dataclass(frozen=True, eq=False)
class _Layer:
    path: str
    name: str  # of its weight
    shape: tuple[int, int]
    tensors: tuple[Tensor, Tensor]


def _by_layer(folder: Path, tensors: Mapping[str, Tensor], parts: tuple[str, str], module: nn.Module) -> list[_Layer]:
    """Both tensors of each layer, in the order of the module."""
    linears = plain_linears(module)
    layers, known, wrong = [], set(), []
    for name, linear in linears.items():
        path = name.removesuffix(".weight")
        keys = [f"{PREFIX}{path}.{part}" for part in parts]
        held = [key for key in keys if key in tensors]
        known.update(held)
        if len(held) == 2:
            rows, columns = linear.weight.shape
            layers.append(_Layer(path, name, (rows, columns), (tensors[keys[0]], tensors[keys[1]])))
        elif held:
            wrong.append(f"'{(set(keys) - set(held)).pop()}' is missing")
    wrong += [f"no nn.Linear of this model takes '{key}'" for key in sorted(tensors.keys() - known)]
    if wrong:
        raise CheckpointError(f"{folder / WEIGHTS}: {listed(wrong, '; ')}")
    if not layers:
        raise CheckpointError(f"{folder / WEIGHTS}: holds no tensors")
    return layers


def _shira(folder: Path, config: Mapping[str, Any], layers: list[_Layer]) -> SparseDelta:
    r = config.get("r")
    if not isinstance(r, int) or isinstance(r, bool) or r < 1:
        raise CheckpointError(f"{folder / CONFIG}: 'r' must be a positive number, not {r!r}")
    wrong, parts = [], {}
    for layer in layers:
        (rows, columns), (values, indices) = layer.shape, layer.tensors
        count = r * (rows + columns)
        if tuple(values.shape) != (count,) or tuple(indices.shape) != (2, count):
            wrong.append(
                f"{layer.path}: values {tuple(values.shape)} and indices {tuple(indices.shape)}, expected ({count},) "
                f"and (2, {count})"
            )
            continue
        place = indices.double()  # PEFT on Windows stores them as fp32
        sides = torch.tensor([[rows], [columns]])
        if bool((place != place.floor()).any() | (place < 0).any() | (place >= sides).any()):
            wrong.append(f"{layer.path}: indices outside of its {rows} x {columns} entries")
            continue
        flat = place[0].long() * columns + place[1].long()
        if len(flat.unique()) != count:
            wrong.append(f"{layer.path}: repeated indices")
        order = flat.argsort()
        parts[layer.name] = (flat[order], values.float()[order])
    if wrong:
        raise CheckpointError(f"{folder / WEIGHTS}: {listed(wrong, '; ')}")
    return _delta(folder, parts)


def _largest(folder: Path, lora: LowRank, budget: int | None) -> Imported:
    total = sum(rows * columns for rows, columns in lora.shapes.values())
    if budget is None:
        raise AdapterError(
            f"{folder}: the update of a LoRA is dense ({total} entries in {len(lora.shapes)} layers) and cannot be "
            "read exactly as a sparse adapter; state a budget of entries to keep, or read it with import_lora"
        )
    if not 1 <= budget <= total:
        raise AdapterError(f"budget {budget} is not within 1 and the {total} entries of the update")
    energy, found = 0.0, []
    for name in lora.weights:
        update = lora.added(name)[1]  # one dense update alive at a time
        energy += float(update.double().square().sum())
        indices = top_support(update.abs(), min(budget, len(update)))
        found.append((name, indices, update[indices]))
    chosen = torch.zeros(sum(len(values) for *_, values in found), dtype=torch.bool)
    chosen[top_support(torch.cat([values for *_, values in found]).abs(), budget)] = True
    shares = chosen.split([len(values) for *_, values in found])
    parts = {name: (i[share], v[share]) for (name, i, v), share in zip(found, shares, strict=True)}
    delta = _delta(folder, parts)
    return Imported(delta, min(1.0, float(delta.values.data.double().square().sum()) / energy))


def _low_rank(folder: Path, config: Mapping[str, Any], layers: list[_Layer]) -> LowRank:
    wrong, ranks, alphas = [], {}, {}
    for layer in layers:
        r = _of_layer(config.get("rank_pattern"), layer.path, config.get("r"))
        alpha = _of_layer(config.get("alpha_pattern"), layer.path, config.get("lora_alpha"))
        (rows, columns), (a, b) = layer.shape, layer.tensors
        if not all(isinstance(number, int | float) and 0 < number < math.inf for number in (r, alpha)):
            wrong.append(f"{layer.path}: rank {r!r} and alpha {alpha!r} must be positive numbers")
        elif tuple(a.shape) != (r, columns) or tuple(b.shape) != (rows, r):
            wrong.append(
                f"{layer.path}: A {tuple(a.shape)} and B {tuple(b.shape)}, expected {(r, columns)} and {(rows, r)}"
            )
        ranks[layer.name], alphas[layer.name] = a.shape[0] if a.ndim else 0, alpha
    if wrong:
        raise CheckpointError(f"{folder}: {listed(wrong, '; ')}")
    shapes, dropout = {layer.name: layer.shape for layer in layers}, config.get("lora_dropout") or 0.0
    try:
        part = LowRank(shapes, ranks, alphas, rank_stabilized=bool(config.get("use_rslora")), dropout=dropout)
    except AdapterError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    part.values.data = torch.cat([factor.float().flatten() for layer in layers for factor in layer.tensors])
    return part


def _of_layer(patterns: Any, path: str, default: Any) -> Any:
    """The value of the first pattern that meets the end of the path, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if re.match(_ending(pattern), path):
            return value
    return default


def _ending(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _delta(folder: Path, parts: Mapping[str, tuple[Tensor, Tensor]]) -> SparseDelta:
    used = {name: (i[v != 0], v[v != 0]) for name, (i, v) in parts.items() if bool((v != 0).any())}
    if not used:
        raise AdapterError(f"{folder}: every value of this adapter is zero; it was never trained")
    delta = SparseDelta({name: indices for name, (indices, _) in used.items()})
    delta.values.data.copy_(torch.cat([values for _, values in used.values()]))
    return delta


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); is this the folder of an adapter?") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise CheckpointError(f"{path}: names no peft_type; other libraries write a file of this name too")
    return config


def _check_settings(folder: Path, config: Mapping[str, Any], own: set[str]) -> None:
    foreign = {key: value for key, value in config.items() if key not in _HARMLESS | own}
    wrong = [f"{key} = {value!r}" for key, value in foreign.items() if value and value != "none"]
    start = config.get("init_lora_weights", True)
    if own is _OF_LORA and start not in _LORA_STARTS:
        wrong.append(f"init_lora_weights = {start!r}")
    for name in ("rank_pattern", "alpha_pattern") if own is _OF_LORA else ():
        wrong += _wrong_patterns(name, config.get(name))
    if wrong:
        raise CheckpointError(f"{folder / CONFIG}: settings that cannot be read: {listed(sorted(wrong))}")


def _wrong_patterns(name: str, patterns: Any) -> list[str]:
    if patterns is not None and not isinstance(patterns, dict):
        return [f"{name} = {patterns!r}"]
    wrong = []
    for pattern in patterns or {}:
        try:
            re.compile(_ending(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            wrong.append(f"{name} with {pattern!r} ({error})")
    return wrong


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); pickle files are never read") from None
    except Exception as error:  # a hostile header raises more than SafetensorError
        raise CheckpointError(f"{path}: damaged or truncated ({error})") from None
    if wrong := sorted(f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype not in _TYPES):
        raise CheckpointError(f"{path}: numbers of a type that is not read: {listed(wrong)}; store it as float32")
    if wrong := sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())):
        raise CheckpointError(f"{path}: values that are not finite in {listed(wrong)}")
    return tensors
