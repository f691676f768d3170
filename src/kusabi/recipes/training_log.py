"""Where the training of a run stands: ``metrics.jsonl``, a line a step, and the last state that was saved."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from kusabi.errors import CheckpointError
from kusabi.files import write_bytes, writing
from kusabi.training.fit import Record

METRICS, CHECKPOINT = "metrics.jsonl", "checkpoint.safetensors"


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Keep the state of a fit."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / CHECKPOINT, dump_tensors(stored))


def load_checkpoint(folder: Path) -> dict[str, Tensor] | None:
    """The last saved state; None when there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    path = folder / CHECKPOINT
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it to start the training again") from None


def trim_metrics(folder: Path, step: int) -> None:
    """Drop records after a step, and a line that was torn by a kill: those steps will be taken again."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    write_bytes(path, "".join(f"{line}\n" for line in lines[:step]).encode())


def append_record(folder: Path, record: Record) -> None:
    """Add one line to the metrics."""
    path = folder / METRICS
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a run, as plain data."""
    text = (folder / METRICS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
