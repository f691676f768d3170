"""An adapter leaves Kusabi: as a folder that stock PEFT reads, merged into a plain model folder, or as ONNX."""

from pathlib import Path
from typing import Any, Literal

import torch

from kusabi.adapters.merged_folder import export_merged
from kusabi.adapters.onnx_folder import check_onnx, export_onnx
from kusabi.adapters.peft_format import export_shira
from kusabi.adapters.peft_lora import export_lora
from kusabi.backbones.digest import stored_digests
from kusabi.backbones.dual_encoder import DTYPES
from kusabi.backbones.model_folder import locate
from kusabi.backbones.weights import names_in_memory, weight_files
from kusabi.errors import SpecError
from kusabi.recipes.judge import classifier
from kusabi.recipes.question import use_device
from kusabi.recipes.stored_adapter import open_adapter

Form = Literal["shira", "lora", "merged", "onnx"]
FORMS: tuple[Form, ...] = ("shira", "lora", "merged", "onnx")


@torch.no_grad()
def export(run: Path, out: Path, form: str, *, backbone: str | None = None, dtype: str | None = None) -> Path:
    """Write the adapter of a run, or of an adapter folder, for programs that do not know Kusabi.

    Args:
        run: A run folder, or an adapter folder.
        out: Where to; must be new or empty.
        form: ``shira`` (of a sparse delta) or ``lora`` (of a low-rank adapter): a folder for
            ``PeftModel.from_pretrained``. ``merged``: a model folder for ``from_pretrained``. ``onnx``: a graph from
            pixels to logits, without text tower.
        backbone: Model folder or Hub id; where the run or the card says when absent.
        dtype: Of the resident weights, and so of a merged folder; as in training when absent. ONNX is always float32.

    Returns:
        The folder written.

    Raises:
        KusabiError: Whatever the user can put right; nothing half-written is left.
    """
    if form not in FORMS:
        raise SpecError(f"--as {form}: not known; choose {', '.join(FORMS)}")
    if dtype is not None and dtype not in DTYPES:
        raise SpecError(f"--dtype {dtype}: not known; choose {', '.join(DTYPES)}")
    if form == "onnx":
        if dtype not in (None, "float32"):
            raise SpecError(f"--dtype {dtype}: ONNX is written in float32, which every runtime has; leave it out")
        check_onnx()
        dtype = "float32"
    use_device("cpu", None)
    stored = open_adapter(run, backbone=backbone, dtype=dtype)
    module: Any = stored.backbone.module
    adapter = stored.adapter
    head = classifier(stored.backbone, adapter)
    if form in ("shira", "lora"):
        (export_shira if form == "shira" else export_lora)(out, module, adapter, head)
        return out
    if form == "onnx":
        export_onnx(out, module, stored.backbone.embed_images, adapter, head)
        return out
    source = locate(stored.source, stored.revision).path
    files = weight_files(source)
    names = names_in_memory(module, stored_digests(files))
    export_merged(out, module, adapter, head, source, files, names, stored.backbone.dtype)
    return out
