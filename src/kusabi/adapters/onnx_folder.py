"""An adapter merged into its vision tower, with its classifier, as one ONNX graph: pixels in, logits out.

The texts are in the classifier already, so that the text tower stays behind. The folder is checked by onnxruntime
before it appears: a graph that answers otherwise than the model never leaves.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter
from kusabi.adapters.exported_head import FACTS, check_classes, facts_of, write_json
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError, FileError
from kusabi.files import writing

GRAPH, README = "model.onnx", "README.md"
INPUT, OUTPUT = "pixel_values", "logits"
OPSET = 18
TOLERANCE = 1e-3  # of the widest spread of logits between classes; fp32 kernels of two libraries differ by about 1e-6
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def check_onnx() -> None:
    """Refuse early where the libraries are missing.

    Raises:
        AdapterError: Naming them and the extra that brings them.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise AdapterError(f"ONNX needs {', '.join(missing)}, not installed here; pip install 'kusabi[onnx]'")


@torch.no_grad()
def export_onnx(
    folder: Path, module: nn.Module, embed: Callable[[Tensor], Tensor], adapter: Adapter, prototypes: Prototypes
) -> None:
    """Write ``model.onnx``, from ``pixel_values`` ``(B, 3, S, S)`` fp32 to ``logits`` ``(B, C)``, any ``B``.

    Class names, prompts and preprocessing are in ``kusabi.json`` beside it; the README runs it without torch.

    Args:
        folder: Where to; must be new or empty.
        module: The backbone's module, on the CPU.
        embed: From pixels ``(B, 3, S, S)`` to unit embeddings ``(B, D)``, by the weights of ``module``.
        adapter: What to merge.
        prototypes: Its classifier, around the text embeddings of the adapted model.

    Raises:
        AdapterError: If a library is missing, the model cannot be traced, or onnxruntime does not answer within
            ``TOLERANCE``; or something is in the way on the disk. Nothing is left behind then.
    """
    check_onnx()
    check_classes(prototypes, adapter.card)
    preprocessing = adapter.card["backbone"]["preprocessing"]
    size = preprocessing["size"]
    shown = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    model = _Answer(module, embed, prototypes).eval()
    with (
        whole_folder(folder) as aside,
        attached(module, *adapter.parts),
    ):  # the graph refers to the weights until written
        _write_graph(aside / GRAPH, model, shown[:2])
        difference = _difference(aside / GRAPH, shown, model(shown))
        if not difference <= TOLERANCE:
            raise AdapterError(
                f"{folder}: onnxruntime is off by {difference:.1e} of the spread of the logits; not written"
            )
        onnx_facts = {"input": INPUT, "output": OUTPUT, "opset": OPSET, "checked_difference": difference}
        write_json(aside / FACTS, {**facts_of(adapter.card), "onnx": onnx_facts})
        text = _readme(adapter.card["backbone"]["source"], preprocessing["fit"])
        (aside / README).write_bytes(text.encode())


class _Answer(nn.Module):
    def __init__(self, module: nn.Module, embed: Callable[[Tensor], Tensor], prototypes: Prototypes) -> None:
        super().__init__()
        self.module, self.prototypes = module, prototypes
        self.embed = embed

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.prototypes(self.embed(pixel_values))


def _write_graph(path: Path, model: nn.Module, shown: Tensor) -> None:
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                model, (), kwargs={INPUT: shown}, dynamo=True, verbose=False, opset_version=OPSET,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            )  # fmt: skip
            for node in program.model.graph.all_nodes():  # the lines of source that each step came from, with paths
                node.metadata_props.clear()
            fixed = isinstance(program.model.graph.inputs[0].shape[0], int)
            with writing(path):
                program.save(path)
    except FileError:
        raise
    except Exception as error:  # whatever the exporter cannot trace, it says in types of its own
        raise AdapterError(
            f"this model cannot be written as ONNX ({_first_line(error)}); export it as merged instead"
        ) from error
    if fixed:
        raise AdapterError(
            f"a {type(model.module).__name__} counts the pictures while it runs, so that its graph would take exactly "
            f"{len(shown)} of them; export it as merged instead"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No words of the exporter on steps that it skips, and none on torchvision, which nothing here needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _difference(path: Path, shown: Tensor, wanted: Tensor) -> float:
    """Largest difference of a logit, as a share of the widest spread of logits of one picture."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    worst = 0.0
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for rows in (slice(0, 1), slice(0, len(shown))):  # not the number of rows that was traced
            (found,) = session.run([OUTPUT], {INPUT: shown[rows].numpy()})
            worst = max(worst, float((torch.from_numpy(found) - wanted[rows]).abs().max()))
    except Exception as error:  # its errors have no common base
        raise AdapterError(
            f"this model's graph does not run in onnxruntime ({_first_line(error)}); export it as merged instead"
        ) from error
    spread = float((wanted.amax(1) - wanted.amin(1)).max())
    return worst / max(spread, 1e-6)


_PLACES: Mapping[str, str] = {
    "pad": """\
    width, height = (max(1, round(edge * side / max(picture.size))) for edge in picture.size)
    box = (0, 0, *picture.size)""",
    "squash": """\
    width = height = side
    box = (0, 0, *picture.size)""",
    "crop": """\
    width = height = side
    left, top = ((edge - min(picture.size)) / 2 for edge in picture.size)
    box = (left, top, left + min(picture.size), top + min(picture.size))""",
}


def _readme(source: str, fit: str) -> str:
    return f"""\
# {source} with an adapter merged into it, as ONNX

`{GRAPH}` goes from `{INPUT}` to `{OUTPUT}`, any number of pictures at once. It needs no torch:

```python
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder = Path("this folder")
facts = json.loads((folder / "{FACTS}").read_text("utf-8"))
session = onnxruntime.InferenceSession(str(folder / "{GRAPH}"), providers=["CPUExecutionProvider"])
prepared = facts["backbone"]["preprocessing"]
side, mean, std = prepared["size"], np.float32(prepared["mean"]), np.float32(prepared["std"])


def pixels(path):
    picture = Image.open(path).convert("RGB")
{_PLACES[fit]}
    if box != (0, 0, width, height):
        picture = picture.resize((width, height), prepared["resample"], box=box, reducing_gap=3.0)
    out = np.zeros((side, side, 3), np.float32)  # zero is the mean colour
    left, top = (side - width) // 2, (side - height) // 2
    out[top : top + height, left : left + width] = (np.asarray(picture, np.float32) / np.float32(255) - mean) / std
    return out.transpose(2, 0, 1)


def logits(paths):
    return session.run(["{OUTPUT}"], {{"{INPUT}": np.stack([pixels(path) for path in paths])}})[0]


def labels(paths):
    return [facts["classes"][index] for index in logits(paths).argmax(axis=1)]
```

`{FACTS}` holds the class names in the order of the logits, their prompts, and the `preprocessing`.
"""
