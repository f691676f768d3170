"""What a training step asks of the vision tower: the caption of icons; captions, labels and places of defects."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining import augment
from pretraining.drawings import Textures
from pretraining.precision import autocast
from pretraining.vision import Student

NEIGHBOURS = 16
SMOOTHING, SPREAD = 0.05, 0.1  # shares of the target over all captions, and over the true caption's nearest ones
MISSED_SPOT = 10.0  # weight of a defective patch: few patches are


@dataclass(frozen=True)
class Pictures:
    """Everything that the vision tower sees; every row of a store has the index of its caption in ``captions``."""

    captions: list[str]
    embeddings: Tensor  # the teacher's, (captions, 384)
    colour: np.ndarray  # (n, 112, 112, 4)
    colour_rows: np.ndarray
    mono: np.ndarray  # (n, 112, 112, 1)
    mono_rows: np.ndarray
    shapes: np.ndarray  # (n, 112, 112, 3)
    shape_rows: np.ndarray
    textures: Textures


@dataclass(frozen=True)
class IconSize:
    """How a step shows icons: side in pixels, patches kept of each (None: all), and how many of each sort."""

    side: int
    keep: int | None
    counts: tuple[int, int, int]  # colour icons, single-colour icons, drawn shapes


@dataclass(frozen=True)
class Bank:
    """The captions as the teacher embeds them, ``(n, 384)``, and the nearest of each with their weights."""

    captions: Tensor
    near: Tensor
    weights: Tensor


def build_bank(captions: Tensor) -> Bank:
    """Find the nearest captions of every caption; ``captions`` has unit length, ``(n, 384)``."""
    near, weights = [], []
    for block in captions.split(1024):
        top = (block @ captions.T).topk(NEIGHBOURS)
        near.append(top.indices)
        weights.append(F.softmax(top.values / 0.1, dim=-1))
    return Bank(captions, torch.cat(near), torch.cat(weights))


def icon_loss(student: Student, pictures: Pictures, bank: Bank, size: IconSize, draw):
    """Name colour icons, single-colour icons and drawn shapes.

    Returns:
        The loss, and figures for the log.
    """
    generator = torch.Generator().manual_seed(int(draw.integers(2**31)))
    colour = draw.integers(len(pictures.colour), size=size.counts[0])
    mono = draw.integers(len(pictures.mono), size=size.counts[1])
    pixels = [
        augment.colour_pixels(_load(pictures.colour, colour), size.side, generator),
        augment.mono_pixels(_load(pictures.mono, mono), size.side, generator),
    ]
    shapes = draw.integers(len(pictures.shapes), size=size.counts[2])
    pixels.append(augment.shape_pixels(_load(pictures.shapes, shapes), size.side, generator))
    rows = np.concatenate([pictures.colour_rows[colour], pictures.mono_rows[mono], pictures.shape_rows[shapes]])
    device = bank.captions.device
    with autocast(device.type):
        embeddings = student(torch.cat(pixels).to(device), size.keep).float()
    loss, hits = _naming(student, embeddings, bank, torch.from_numpy(rows).to(device))
    return loss, {"icon_loss": loss.item(), "named": hits}


def texture_loss(student: Student, pictures: Pictures, bank: Bank, side: int, n: int, draw):
    """Name ``n`` inspection pictures, tell every parameter from the embedding, and point at the defective patches.

    Returns:
        The loss, and figures for the log.
    """
    device = bank.captions.device
    pixels, rows, labels, spots = pictures.textures.batch(n, side, draw)
    generator = torch.Generator().manual_seed(int(draw.integers(2**31)))
    with autocast(device.type):
        embeddings, found = student.with_spots(augment.texture_pixels(pixels, generator).to(device))
    embeddings = embeddings.float()
    naming, hits = _naming(student, embeddings, bank, torch.from_numpy(rows).to(device))
    logits = student.attributes(16 * F.normalize(embeddings, dim=-1))
    attributes, seen = pictures.textures.loss(logits, labels.to(device))
    weight = torch.tensor(MISSED_SPOT, device=device)
    spotting = F.binary_cross_entropy_with_logits(found.float(), spots.to(device).float(), pos_weight=weight)
    return 0.5 * naming + attributes + spotting, {"texture_named": hits, "spots": spotting.item(), **seen}


def _naming(student: Student, embeddings: Tensor, bank: Bank, target: Tensor) -> tuple[Tensor, float]:
    logits = student.log_scale.exp() * F.normalize(embeddings, dim=-1) @ bank.captions.T
    log_p = F.log_softmax(logits, dim=-1)
    true = log_p.gather(1, target[:, None]).mean()
    soft = (log_p.gather(1, bank.near[target]) * bank.weights[target]).sum(1).mean()
    hits = (logits.argmax(1) == target).float().mean().item()
    return -((1 - SMOOTHING - SPREAD) * true + SPREAD * soft + SMOOTHING * log_p.mean()), round(hits, 3)


def _load(store: np.ndarray, rows: np.ndarray) -> Tensor:
    """Read rows of a store in the order of the file, which a disk likes, and give them in the order asked."""
    return torch.from_numpy(store[np.sort(rows)][np.argsort(np.argsort(rows))]).permute(0, 3, 1, 2).float() / 255
