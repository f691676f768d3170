"""Rendered icons into training pixels: random place, background, colours and quality, a batch at a time."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining.vision import MEAN, STD


def normalise(pixels: Tensor) -> Tensor:
    """Shift pixels in [0, 1], shape ``(batch, 3, h, w)``, to the encoder's mean and deviation."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def place(pixels: Tensor, side: int, draw: torch.Generator) -> Tensor:
    """Resample ``(batch, channels, h, w)`` to ``side`` with random zoom, rotation and shift; outside is zero."""
    n = len(pixels)
    zoom = torch.empty(n).uniform_(0.85, 1.4, generator=draw)
    angle = torch.empty(n).normal_(0, 0.12, generator=draw).clamp(-0.35, 0.35)
    shift = torch.empty(n, 2).uniform_(-0.12, 0.12, generator=draw)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)
    grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


def backgrounds(n: int, side: int, draw: torch.Generator) -> Tensor:
    """White for half; plain colours, dark and graded grounds for the rest; shape ``(n, 3, side, side)``."""
    kind = torch.rand(n, generator=draw)
    ground = torch.rand(n, 3, 1, 1, generator=draw)
    pale = 1 - 0.25 * torch.rand(n, 3, 1, 1, generator=draw)
    ground = torch.where(_column(kind < 0.5), torch.ones(()), ground)
    ground = torch.where(_column((kind >= 0.5) & (kind < 0.65)), pale, ground)
    ground = torch.where(_column((kind >= 0.65) & (kind < 0.75)), 0.1 * pale, ground).expand(n, 3, side, side)
    ramp = torch.rand(n, 3, 2, 2, generator=draw)
    ramp = F.interpolate(ramp, size=(side, side), mode="bilinear", align_corners=True)
    return torch.where(_column(kind > 0.88), ramp, ground)


def colour_pixels(rgba: Tensor, side: int, draw: torch.Generator) -> Tensor:
    """Colour icons, ``(batch, 4, h, w)`` in [0, 1], onto backgrounds; some get dark outlines or lose their colour."""
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    placed = place(rgba, side, draw)
    ground = backgrounds(len(rgba), side, draw)
    pixels = placed[:, :3] + ground * (1 - placed[:, 3:])
    luma = pixels.mean(1, keepdim=True)
    edge = F.max_pool2d(luma, 3, 1, 1) + F.max_pool2d(-luma, 3, 1, 1)
    inked = pixels * (1 - (2.5 * edge).clamp(0, 1))
    pixels = torch.where(_chance(0.25, len(pixels), draw), inked, pixels)
    line_art = (1 - 2.5 * edge).clamp(0, 1).expand_as(pixels)
    pixels = torch.where(_chance(0.05, len(pixels), draw), line_art, pixels)
    return _photograph(pixels, draw)


def mono_pixels(alpha: Tensor, side: int, draw: torch.Generator) -> Tensor:
    """Single-colour icons, ``(batch, 1, h, w)``: dark on light mostly, any two colours else, grey on black at times."""
    n = len(alpha)
    placed = place(alpha, side, draw)
    ground = backgrounds(n, side, draw)
    bright = (ground.mean((1, 2, 3)) > 0.5).float().view(n, 1, 1, 1)
    ink = torch.rand(n, 3, 1, 1, generator=draw) * 0.45
    ink = torch.where(_chance(0.5, n, draw), ink * 0.1, ink)
    ink = bright * ink + (1 - bright) * (1 - ink)
    return _photograph(ink * placed + ground * (1 - placed), draw)


def shape_pixels(rgb: Tensor, side: int, draw: torch.Generator) -> Tensor:
    """Drawn shapes, ``(batch, 3, h, w)`` in [0, 1]: only size and quality vary, colours are the caption's."""
    pixels = F.interpolate(rgb, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    noise = torch.randn(pixels.shape, generator=draw) * 0.04
    return normalise(torch.where(_chance(0.3, len(rgb), draw), pixels + noise, pixels).clamp(0, 1))


def _photograph(pixels: Tensor, draw: torch.Generator) -> Tensor:
    n, side = len(pixels), pixels.shape[-1]
    coarse = F.interpolate(pixels, size=(28, 28), mode="bilinear", align_corners=False, antialias=True)
    coarse = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    pixels = torch.where(_chance(0.1, n, draw), coarse, pixels)
    grey = pixels.mean(1, keepdim=True).expand_as(pixels)
    pixels = torch.where(_chance(0.12, n, draw), grey, pixels)
    gain = torch.empty(n, 1, 1, 1).uniform_(0.8, 1.2, generator=draw)
    tint = torch.empty(n, 3, 1, 1).uniform_(-0.06, 0.06, generator=draw)
    pixels = (pixels - 0.5) * gain + 0.5 + tint
    noise = torch.randn(pixels.shape, generator=draw) * 0.06
    return normalise(torch.where(_chance(0.15, n, draw), pixels + noise, pixels).clamp(0, 1))


def texture_pixels(rgb: Tensor, draw: torch.Generator) -> Tensor:
    """Drawn textures, ``(batch, 3, h, w)`` in [0, 1]: contrast, brightness and, for some, colour vary."""
    n = len(rgb)
    gain = torch.exp(torch.empty(n, 1, 1, 1).uniform_(-0.4, 0.3, generator=draw))
    shift = torch.empty(n, 3, 1, 1).uniform_(-0.1, 0.1, generator=draw)
    shift = torch.where(_chance(0.5, n, draw), shift.mean(1, keepdim=True), shift)
    return normalise(((rgb - 0.5) * gain + 0.5 + shift).clamp(0, 1))


def clean_pixels(rgba: np.ndarray, side: int) -> Tensor:
    """Icons on white without any change, as evaluation shows them; ``(batch, h, w, 4 or 1)``, uint8."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
    colour = pixels[:, :3] if pixels.shape[1] == 4 else torch.zeros(())
    pixels = colour * pixels[:, -1:] + (1 - pixels[:, -1:]).expand(-1, 3, -1, -1)
    return normalise(F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=True))


def _column(mask: Tensor) -> Tensor:
    return mask.view(-1, 1, 1, 1)


def _chance(p: float, n: int, draw: torch.Generator) -> Tensor:
    return _column(torch.rand(n, generator=draw) < p)


def token_count(side: int) -> int:
    """Tokens of a square picture, the class token included."""
    return 1 + math.prod((side // 14, side // 14))
