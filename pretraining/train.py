"""The vision tower learns to name pictures: one loop, resumable, every random choice a function of seed and step."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretraining import augment
from pretraining.checkpoint import load_student, resume, save
from pretraining.drawings import ATTRIBUTES
from pretraining.losses import IconSize, Pictures, build_bank, icon_loss, texture_loss
from pretraining.precision import attention, autocast
from pretraining.vision import Student, build_vision, freeze_lower, vision_config


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: steps alternate between icons and, every ``texture_every``-th, drawn textures."""

    steps: int = 2800
    batch: int = 128
    texture_every: int = 6
    partial_until: float = 0.85  # share of the steps that see the busiest patches alone, which buys more pictures
    frozen: int = 4
    rate: float = 3e-4
    head_rate: float = 1e-3
    warmup: int = 150
    checkpoint_every: int = 120  # seconds
    seed: int = 0


def train(pictures: Pictures, onnx: Path, folder: Path, schedule: Schedule) -> Student:
    """Train, or go on from the checkpoint in ``folder``; logs running means every 20 steps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(schedule.seed)
    student = Student(build_vision(onnx), ATTRIBUTES).to(device)
    student.tower.set_attn_implementation(attention(device))
    freeze_lower(student, schedule.frozen)
    student.train()
    optimizer = _optimizer(student, schedule)
    bank = build_bank(pictures.embeddings.to(device))
    folder.mkdir(parents=True, exist_ok=True)
    step, spent, seen = resume(folder / "checkpoint.safetensors", student, optimizer)
    if step == 0:
        _start_head(student, pictures, bank.captions, device)
    started = saved = time.monotonic()
    means: dict[str, float] = {}
    while step < schedule.steps:
        draw = np.random.default_rng([schedule.seed, step])
        torch.manual_seed(int(draw.integers(2**31)))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _shape(step, schedule)
        if _is_textured(step, schedule):
            side, n = _texture_size(schedule, draw)
            loss, parts = texture_loss(student, pictures, bank, side, n, draw)
        else:
            size = _icon_size(step, schedule, draw)
            loss, parts = icon_loss(student, pictures, bank, size, draw)
            n = sum(size.counts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        step, seen = step + 1, seen + n
        now = time.monotonic()
        for name, value in parts.items():
            means[name] = round(means.get(name, value) * 0.95 + value * 0.05, 4)
        if step % 20 == 0:
            record = {"step": step, "seconds": round(spent + now - started), "pictures": seen, **means}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
        if now - saved > schedule.checkpoint_every or step == schedule.steps:
            save(folder / "checkpoint.safetensors", student, optimizer, step, spent + now - started, seen)
            saved = now
    return student


def _start_head(student: Student, pictures: Pictures, bank: Tensor, device: str, n: int = 4000) -> None:
    """Solve the head once by ridge regression on the untrained tower, so that training starts from a map that works."""
    features, targets = [], []
    for store, rows in ((pictures.colour, pictures.colour_rows), (pictures.mono, pictures.mono_rows)):
        chosen = np.linspace(0, len(store) - 1, n).astype(int)
        targets.append(bank[torch.from_numpy(rows[chosen]).to(device)])
        for block in np.array_split(chosen, 40):
            with torch.inference_mode(), autocast(device):
                pixels = augment.clean_pixels(store[block], 84).to(device)
                features.append(student.tower(pixel_values=pixels).pooler_output.float())
    x, y = torch.cat(features).double(), torch.cat(targets).double()
    ridge = 0.05 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=device)
    with torch.no_grad():
        student.head.weight.copy_(torch.linalg.solve(x.T @ x + ridge, x.T @ y).T)


def _icon_size(step: int, schedule: Schedule, draw: np.random.Generator) -> IconSize:
    side = int(draw.choice([84, 112], p=[0.8, 0.2]))
    n = schedule.batch if side < 112 else schedule.batch // 2
    keep = None
    if step < schedule.partial_until * schedule.steps:
        keep = int(draw.choice([16, 20, 24])) if side < 112 else 36
    colour, mono = round(0.62 * n), round(0.3 * n)
    return IconSize(side, keep, (colour, mono, n - colour - mono))


def _texture_size(schedule: Schedule, draw: np.random.Generator) -> tuple[int, int]:
    """Side in pixels and how many, about equally dear: a defect is seen best where it is largest."""
    side = int(draw.choice([112, 168, 224], p=[0.45, 0.2, 0.35]))
    return side, {112: 64, 168: 32, 224: 20}[side] * schedule.batch // 128


def _is_textured(step: int, schedule: Schedule) -> bool:
    return step % schedule.texture_every == schedule.texture_every - 1


def _shape(step: int, schedule: Schedule) -> float:
    return min(1.0, (step + 1) / schedule.warmup) * (1 - step / schedule.steps) ** 0.75


def _optimizer(student: Student, schedule: Schedule) -> torch.optim.Optimizer:
    heads = [*student.head.parameters(), *student.attributes.parameters()]
    body = [p for p in student.tower.parameters() if p.requires_grad]
    groups = [
        {"params": body, "peak": schedule.rate, "weight_decay": 0.05},
        {"params": heads, "peak": schedule.head_rate, "weight_decay": 0.01},
        {"params": [student.log_scale], "peak": schedule.head_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98), fused=True)


def finished_student(path: Path) -> Student:
    """Read a student back from its checkpoint alone."""
    from transformers import Dinov2Model

    student = Student(Dinov2Model(vision_config()), ATTRIBUTES)
    load_student(path, student)
    return student.eval()
