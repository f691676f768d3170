"""Drawn inspection pictures: surfaces with and without defects, their captions, and labels of every parameter."""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining.defects import add_defect, any_defect
from pretraining.phrases import DEFECTS, TEXTURES
from pretraining.shapes import any_shape, draw_shape
from pretraining.surfaces import DIRECTIONS, SIDE, Surface, any_surface, draw_surface

PATCH = 14
GROUPS = {"present": 2, "defect": len(DEFECTS) + 1, "texture": len(TEXTURES), "direction": DIRECTIONS, "size": 3}
ATTRIBUTES = sum(GROUPS.values())
WEIGHTS = {"present": 1.0, "defect": 0.5, "texture": 0.3, "direction": 0.2, "size": 0.2}


@dataclass(frozen=True)
class Inspection:
    """A surface, the defect on it if any, and the seed of the picture."""

    surface: Surface
    defect: str | None
    seed: int

    @property
    def caption(self) -> str:
        """The sentence about this picture."""
        if self.defect is None:
            return caption_of(self.surface.kind, None, self.seed % 3)
        return caption_of(self.surface.kind, self.defect, self.seed % 2)

    @property
    def labels(self) -> list[int]:
        """Class of each attribute group, -1 where it does not apply."""
        kind = 0 if self.defect is None else 1 + list(DEFECTS).index(self.defect)
        texture = list(TEXTURES).index(self.surface.kind)
        return [int(self.defect is not None), kind, texture, self.surface.direction, self.surface.size]


def caption_of(texture: str, defect: str | None, variant: int) -> str:
    """One of the captions of a texture with or without a defect."""
    if defect is None:
        return (texture, f"{texture} without defects", f"normal {texture}")[variant]
    return (f"{texture} with a {defect}", f"defective {texture} with a small {defect}")[variant]


def texture_captions() -> list[str]:
    """Every caption that an inspection picture may have."""
    clean = [caption_of(t, None, v) for t in TEXTURES for v in range(3)]
    return clean + [caption_of(t, d, v) for t in TEXTURES for d in DEFECTS for v in range(2)]


def any_inspection(seed: int) -> Inspection:
    """Choose an inspection picture; two seeds that differ in the last bit share the surface, one has a defect."""
    surface = any_surface(np.random.default_rng([seed // 2, 3]))
    defect = any_defect(np.random.default_rng([seed, 4])) if seed % 2 else None
    return Inspection(surface, defect, seed)


def draw_inspection(inspection: Inspection) -> tuple[np.ndarray, np.ndarray]:
    """Draw it: grey pixels ``(224, 224)``, uint8, and where the defect is, ``(16, 16)`` patches, bool."""
    draw = np.random.default_rng([inspection.seed, 5])
    field = draw_surface(inspection.surface, draw)
    mask = np.zeros_like(field)
    if inspection.defect is not None:
        field, mask = add_defect(field, inspection.surface, inspection.defect, draw)
    if draw.random() < 0.3:  # uneven light
        y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
        field = field + draw.uniform(-0.15, 0.15) * x + draw.uniform(-0.15, 0.15) * y
    field = field + draw.uniform(-0.15, 0.15)
    patches = mask.reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).max((1, 3)) > 0.4
    return np.round(255 * np.clip(field, 0, 1)).astype(np.uint8), patches


def _inspection_block(job: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    drawn = [draw_inspection(any_inspection(seed)) for seed in range(*job)]
    return np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])


def _shape_block(job: tuple[int, int]) -> tuple[np.ndarray]:
    return (np.stack([draw_shape(any_shape(seed)) for seed in range(*job)]),)


def _drawn(block, n: int, paths: list[Path]) -> list[np.ndarray]:
    if not all(path.exists() for path in paths):
        jobs = [(i, min(i + 250, n)) for i in range(0, n, 250)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            stores = [np.concatenate(parts) for parts in zip(*pool.map(block, jobs), strict=True)]
        for path, store in zip(paths, stores, strict=True):
            with (partial := path.with_suffix(".partial")).open("wb") as file:
                np.save(file, store, allow_pickle=False)
            partial.rename(path)
    return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]


def draw_shapes(n: int, cache: Path) -> tuple[np.ndarray, list[str]]:
    """Draw ``n`` shape pictures once; returns the store ``(n, 112, 112, 3)`` and the captions."""
    (store,) = _drawn(_shape_block, n, [cache / f"shapes-{n}.npy"])
    return store, [any_shape(seed).caption for seed in range(n)]


class Textures:
    """A store of inspection pictures that yields batches of crops with captions and labels.

    Args:
        n: How many pictures; odd ones have a defect.
        cache: Where they are kept.
        row: Index of every caption.
    """

    def __init__(self, n: int, cache: Path, row: dict[str, int]):
        self.pixels, self.masks = _drawn(_inspection_block, n, [cache / f"textures-{n}.npy", cache / f"masks-{n}.npy"])
        inspections = [any_inspection(seed) for seed in range(n)]
        self.rows = np.array([row[i.caption] for i in inspections])
        self.labels = np.array([i.labels for i in inspections])

    def batch(self, n: int, side: int, draw: np.random.Generator):
        """Cut, turn and tint ``n`` pictures.

        Returns:
            Pixels ``(n, 3, side, side)``, caption rows ``(n,)``, labels ``(n, groups)`` and defect patches
            ``(n, (side / 14) ** 2)``.
        """
        pairs = draw.integers(len(self.pixels) // 2, size=(n + 1) // 2)
        chosen = np.stack([2 * pairs, 2 * pairs + 1], 1).ravel()[:n]
        labels, pictures, masks = self.labels[chosen].copy(), [], []
        for position, index in enumerate(chosen):
            top, left = _window(self.masks[index], side // PATCH, draw)
            cut = np.s_[top * PATCH : top * PATCH + side, left * PATCH : left * PATCH + side]
            turn = int(draw.integers(8))
            pictures.append(turned(self.pixels[index][cut], turn))
            patches = self.masks[index][top : top + side // PATCH, left : left + side // PATCH]
            masks.append(turned(patches, turn).ravel())
            labels[position, 3] = turned_direction(labels[position, 3], turn)
        grey = torch.from_numpy(np.stack(pictures)).float()[:, None] / 255
        return tinted(grey, draw), self.rows[chosen], torch.from_numpy(labels), torch.from_numpy(np.stack(masks))

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross entropy of every attribute group, and the hit rate of the two that matter most."""
        total, seen = logits.new_zeros(()), {}
        for index, (name, part) in enumerate(zip(GROUPS, logits.split(list(GROUPS.values()), 1), strict=True)):
            total = total + WEIGHTS[name] * F.cross_entropy(part, labels[:, index], ignore_index=-1)
            if name in ("present", "texture"):
                seen[name] = round((part.argmax(1) == labels[:, index]).float().mean().item(), 3)
        return total, seen


def _window(mask: np.ndarray, cells: int, draw: np.random.Generator) -> tuple[int, int]:
    """Choose a window of ``cells`` patches a side that keeps the defect's middle inside."""
    room = len(mask) - cells
    if not mask.any():
        return int(draw.integers(room + 1)), int(draw.integers(room + 1))
    middle = np.argwhere(mask).mean(0).round().astype(int)
    low, high = np.clip(middle - cells + 1, 0, room), np.clip(middle, 0, room)
    top, left = (int(draw.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
    return top, left


def turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight flips and quarter turns of a picture ``(h, w)``."""
    picture = np.rot90(picture, turn % 4)
    return picture[:, ::-1] if turn >= 4 else picture


def turned_direction(direction: int, turn: int) -> int:
    """The orientation label after the same turn; -1 stays -1."""
    if direction < 0:
        return -1
    direction = (direction + 2 * (turn % 4)) % DIRECTIONS
    return (-direction) % DIRECTIONS if turn >= 4 else direction


def tinted(grey: Tensor, draw: np.random.Generator) -> Tensor:
    """Grey pictures ``(n, 1, h, w)`` into colour: half stay grey, the others run between two random colours."""
    n = len(grey)
    dark = torch.from_numpy(draw.uniform(0, 0.45, (n, 3, 1, 1))).float()
    light = torch.from_numpy(draw.uniform(0.55, 1, (n, 3, 1, 1))).float()
    coloured = dark + (light - dark) * grey
    return torch.where(torch.from_numpy(draw.random((n, 1, 1, 1)) < 0.5), grey.expand_as(coloured), coloured)
