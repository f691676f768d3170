"""Checkpoints of a run as plain tensors: the student, the optimizer's state, and how far it has come."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save(
    path: Path, student: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float, seen: int = 0
) -> None:
    """Write aside and rename: the file is whole or absent."""
    tensors = {f"student.{n}": t.contiguous() for n, t in student.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    partial = path.with_suffix(".partial")
    about = {"step": step, "seconds": round(seconds), "seen": seen}
    save_file(tensors, partial, {name: str(value) for name, value in about.items()})
    partial.rename(path)


def resume(path: Path, student: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float, int]:
    """Fill both from the file if it is there; returns the steps done, the seconds they took, the pictures seen."""
    if not path.exists():
        return 0, 0.0, 0
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        about = opened.metadata()
    load_student(path, student)
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(about["step"]), float(about["seconds"]), int(about.get("seen", 0))


def load_student(path: Path, student: nn.Module) -> None:
    """Fill a student from a checkpoint."""
    tensors = {n.removeprefix("student."): t for n, t in load_file(path).items() if n.startswith("student.")}
    student.load_state_dict(tensors)
