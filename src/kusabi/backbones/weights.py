"""The safetensors files of a model folder, and the names that their tensors get in memory."""

from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from kusabi.backbones.digest import stored_digests, whole_digest
from kusabi.backbones.model_folder import MINI, read_json
from kusabi.errors import BackboneError, listed

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5", "flax_model.msgpack")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """``model.safetensors``, or the shards that its index lists.

    Raises:
        BackboneError: If there are none, or shards are missing. Pickle files are never read.
    """
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickled = [name for name in _PICKLED if (folder / name).exists()]
    found = f"only {', '.join(pickled)}, which is refused: loading it can run code" if pickled else "no weights"
    raise BackboneError(
        f"{folder}: no {SINGLE} here ({found}); choose a revision that has safetensors, or convert the model once on a "
        "machine that you trust with save_pretrained of transformers"
    )


def _shards(folder: Path) -> tuple[Path, ...]:
    placed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise BackboneError(f"{folder / INDEX}: no weight_map in this index; download it again")
    names = sorted({str(name) for name in placed.values()})
    wrong = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if wrong:
        raise BackboneError(
            f"{folder}: {len(wrong)} of {len(names)} weight files are missing: {listed(wrong)}; download them again"
        )
    return tuple(folder / name for name in names)


def digest_now(source: str) -> str | None:
    """Digest of the weights that a model folder holds now; None of a Hub id, which nobody is asked about.

    Raises:
        BackboneError: If they cannot be read.
    """
    path = MINI if source == "mini" else Path(source).expanduser()
    return whole_digest(stored_digests(weight_files(path))) if path.is_dir() else None


def stored_scalar(files: Iterable[Path], name: str) -> float:
    """The one entry of a tensor, read in fp32 from the file: a cast to bf16 would round it.

    Raises:
        BackboneError: If no file has such a tensor.
    """
    paths = tuple(files)
    for path in paths:
        with safe_open(path, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118  # it is no mapping
                return float(tensors.get_tensor(name).float().reshape(()))
    raise BackboneError(f"{paths[0].parent}: the weights have no tensor '{name}'; the model is incomplete")


def names_in_memory(module: PreTrainedModel, stored: Iterable[str]) -> dict[str, str]:
    """Name in the files -> name in the loaded module, for models whose layout transformers changes on loading."""
    conversions = getattr(module, "_weight_conversions", None) or []
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    known = module.state_dict()
    names = {}
    for name in stored:
        for rules in ((renamings, converters), ([], [])):
            names[name], _ = rename_source_key(name, *rules, module.base_model_prefix, known)
            if names[name] in known or name not in known:
                break
    return names
