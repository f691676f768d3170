"""An adapter written into a copy of its backbone: a plain Hugging Face folder that knows nothing of adapters."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kusabi.adapters.attach import additions, with_all
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.exported_head import FACTS, READING, write_head, write_json
from kusabi.adapters.part import AdapterPart, check_all_fit
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError, CheckpointError, FileError, listed

Rewrite = Callable[[Tensor], Tensor]
"""The stored weight to the merged one, of equal shape and dtype; the argument is left alone."""

README, OLD_README, INDEX = "README.md", "BACKBONE.md", "model.safetensors.index.json"
_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
_NOT_COPIED = {"adapter_config.json", FACTS}  # from_pretrained would look for an adapter beside it
_DTYPES = {"F64", "F32", "F16", "BF16"}


def export_merged(
    folder: Path, module: nn.Module, adapter: Adapter, prototypes: Prototypes, source: Path, files: Sequence[Path],
    names: Mapping[str, str], dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Write the backbone with the adapter in its weights, and the classifier beside it.

    Untouched tensors, configuration, tokenizer, processor and licence files are those of the backbone, and each weight
    keeps its file. The merged model equals the attached one bitwise where it is written in the dtype in which the
    backbone was resident. Where that was wider than the stored dtype, the default rounds the sums to the stored one.

    Args:
        folder: Where to; must be new or empty.
        module: The backbone's module.
        adapter: What to merge.
        prototypes: Its classifier, around the text embeddings of the adapted model.
        source: Folder of the backbone.
        files: Its safetensors files, all of them.
        names: Name in the files -> name in the module, of all stored tensors.
        dtype: Of all weights; each one's stored dtype when absent.

    Raises:
        AdapterError: If a part cannot be merged; a target is not stored as one tensor of its own shape, naming all such
            targets; or something is in the way on the disk.
        CheckpointError: If a file of the backbone cannot be read. Nothing is left behind.
    """
    check_all_fit(adapter.parts, module)
    rewrites = stored_rewrites(files, module, rewrites_of(adapter.parts), names)
    with whole_folder(folder) as aside:
        for file in files:
            _copy_weights(file, aside / file.name, rewrites, dtype)
        for path in _companions(source, files):
            shutil.copyfile(path, aside / (OLD_README if path.name == README else path.name))
        if dtype is not None:
            _declare(aside / "config.json", str(dtype).removeprefix("torch."))
        write_head(aside, prototypes, adapter.card)
        text = _readme(type(module).__name__, adapter.card["backbone"]["source"])
        (aside / README).write_bytes(text.encode())


def rewrites_of(parts: Sequence[AdapterPart]) -> dict[str, Rewrite]:
    """What deltas do to each of their targets, all together: as if they were attached.

    Raises:
        AdapterError: If a part cannot be merged.
    """

    def rewrite(amounts: Sequence[tuple[Tensor | None, Tensor]]) -> Rewrite:
        return lambda weight: with_all(weight.flatten(), amounts).view(weight.shape)

    return {name: rewrite(amounts) for name, amounts in additions(parts).items()}


def stored_rewrites(
    files: Sequence[Path], module: nn.Module, rewrites: Mapping[str, Rewrite], names: Mapping[str, str]
) -> dict[str, Rewrite]:
    """The rewrites by the names of the tensors in the files.

    Raises:
        AdapterError: Listing all targets that the files hold not at all, in several tensors, or in another form.
        CheckpointError: If a file cannot be read.
    """
    parameters = dict(module.named_parameters())
    found: dict[str, list[tuple[str, str, list[int]]]] = {name: [] for name in rewrites}
    for file in files:
        with ExitStack() as stack:
            tensors = _opened(file, stack)
            for key in tensors.keys():  # noqa: SIM118  # it is no mapping
                if (name := names.get(key, key)) in rewrites:
                    piece = tensors.get_slice(key)
                    found[name].append((key, piece.get_dtype(), list(piece.get_shape())))
    wrong = []
    for name, stored in found.items():
        shape = list(parameters[name].shape)
        if len(stored) != 1:
            wrong.append(f"{name} is stored in {len(stored)} tensors")
        elif stored[0][2] != shape or stored[0][1] not in _DTYPES:
            wrong.append(f"{name} {shape} is stored as {stored[0][1]} {stored[0][2]}")
    if wrong:
        raise AdapterError(f"cannot be merged into the files of this backbone: {listed(wrong, '; ')}")
    return {stored[0][0]: rewrites[name] for name, stored in found.items()}


def _copy_weights(file: Path, copy: Path, rewrites: Mapping[str, Rewrite], dtype: torch.dtype | None) -> None:
    with ExitStack() as stack:
        opened, tensors = _opened(file, stack), {}
        for key in opened.keys():  # noqa: SIM118  # it is no mapping
            tensor = opened.get_tensor(key)
            cast = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
            tensors[key] = rewrites[key](cast) if key in rewrites else cast
        try:
            save_file(tensors, copy, opened.metadata())
        except SafetensorError as error:  # as which it tells what the system refused
            raise FileError(f"{copy}: cannot be written ({error}); make room, or choose another place") from None


def _declare(path: Path, dtype: str) -> None:
    """Write the dtype into a configuration, wherever it states one: ``from_pretrained`` casts to it."""

    def declared(fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {key: dtype if key in ("dtype", "torch_dtype") else declared(value) for key, value in fields.items()}

    write_json(path, declared(json.loads(path.read_text(encoding="utf-8"))) | {"dtype": dtype})


def _opened(file: Path, stack: ExitStack) -> Any:
    try:
        return stack.enter_context(safe_open(file, framework="pt"))
    except Exception as error:  # a hostile header raises more than SafetensorError
        raise CheckpointError(f"{file}: damaged or missing ({error}); restore it or download it again") from None


def _companions(source: Path, files: Sequence[Path]) -> list[Path]:
    """Files that belong to the model beside its weights."""
    sharded = all(file.name != "model.safetensors" for file in files)
    found = []
    for path in sorted(source.iterdir()):
        legal = path.name.upper().startswith(_LEGAL) or path.name == README
        index = path.name.endswith(".index.json") and not (sharded and path.name == INDEX)
        if path.is_file() and (legal or path.suffix in _SUFFIXES) and not index and path.name not in _NOT_COPIED:
            found.append(path)
    return found


def _readme(kind: str, source: str) -> str:
    return f"""\
# {source} with an adapter merged into it

A plain folder of transformers. {OLD_README} describes the model it was made from,
whose licence holds for this one too.

```python
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import {kind}

folder = Path("this folder")
model = {kind}.from_pretrained(folder).eval()
```

These five lines run the classifier of the adapter:

{READING}"""
