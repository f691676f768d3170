"""Small defects on drawn surfaces: each changes a spot of one or two patches, or a thin line."""

import math

import numpy as np

from pretraining.phrases import DEFECTS
from pretraining.surfaces import Surface, any_surface, draw_surface, noise

# Spots whose statistics differ are the hardest to see and the commonest in cloth, so they are drawn most often.
CHANCES = {"noisy spot": 3.0, "odd patch": 4.0, "blurred spot": 2.5, "missing thread": 1.5}


def any_defect(draw: np.random.Generator) -> str:
    """Choose a kind of defect at random."""
    chances = np.array([CHANCES.get(kind, 1.0) for kind in DEFECTS])
    return str(draw.choice(list(DEFECTS), p=chances / chances.sum()))


def add_defect(field: np.ndarray, surface: Surface, kind: str, draw: np.random.Generator):
    """Return the field with the defect on it, and where it is: a mask in [0, 1] of the same shape.

    Args:
        field: A drawn surface, shape ``(side, side)``.
        surface: What it was drawn from.
        kind: One of the known defects.
        draw: Source of place, size and strength.
    """
    side, deviation = len(field), max(field.std(), 0.02)
    cy, cx = draw.uniform(0.08 * side, 0.92 * side, 2)
    y, x = np.mgrid[:side, :side]
    turn = draw.uniform(0, math.pi)
    u = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
    v = -(x - cx) * math.sin(turn) + (y - cy) * math.cos(turn)
    strong = draw.uniform(1.2, 3.0) * deviation
    spot = _spot(u, v, draw.uniform(4, 12), draw.uniform(6, 20), draw.uniform(0.8, 3))
    match kind:
        case "scratch":
            mask = _line(u, v, draw.uniform(12, 60), draw.uniform(0.5, 1.6))
            return field + draw.choice([-1, 1]) * 1.5 * strong * mask, mask
        case "crack":
            wander = 6 * noise(draw, side, 8, 1, 0)
            mask = _line(u, v + wander, draw.uniform(15, 60), draw.uniform(0.5, 1.2))
            return field - 1.5 * strong * mask, mask
        case "crease":
            length, width = draw.uniform(25, 90), draw.uniform(2, 5)
            ridge = _line(u, v - width, length, width) - _line(u, v + width, length, width)
            return field + strong * ridge, np.abs(ridge)
        case "missing thread":
            a = surface.angle + draw.choice([0, math.pi / 2])
            u = (x - cx) * math.cos(a) + (y - cy) * math.sin(a)
            v = -(x - cx) * math.sin(a) + (y - cy) * math.cos(a)
            mask = _line(u, v, draw.uniform(15, 80), draw.uniform(0.8, 2.2))
            return field * (1 - mask) + (field.mean() - 0.8 * strong) * mask, mask
        case "hole":
            mask = _spot(u, v, draw.uniform(2, 7), draw.uniform(3, 9), 0.7)
            return field * (1 - mask) + draw.uniform(0.0, 0.2) * mask, mask
        case "dent":
            radius = draw.uniform(5, 12)
            mask = np.exp(-(u**2 + v**2) / (2 * radius**2))
            return field + 2 * strong * mask * u / radius, (mask > 0.3).astype(float)
        case "stain":
            mask = _spot(u + 2 * noise(draw, side, 5, 1, 0), v, draw.uniform(5, 14), draw.uniform(6, 18), 3)
            return field - 0.8 * strong * mask, mask
        case "bright spot":
            return field + strong * spot, spot
        case "dark spot":
            return field - strong * spot, spot
        case "blurred spot":
            calm = field.mean() + draw.uniform(0, 0.35) * (field - field.mean())
            return field * (1 - spot) + calm * spot, spot
        case "noisy spot":
            other = noise(draw, side, draw.uniform(0.4, 1.2), 1, 0) * deviation * draw.uniform(0.9, 2.2)
            return field * (1 - spot) + (field.mean() + other) * spot, spot
        case _:
            other = _unlike(surface, draw, side)
            other = field.mean() + (other - other.mean()) * deviation / (other.std() + 1e-6)
            return field * (1 - spot) + other * spot, spot


def _unlike(surface: Surface, draw: np.random.Generator, side: int) -> np.ndarray:
    """Another surface: the same kind turned by much and of other grain, or any kind at all."""
    factor = draw.choice([0.4, 0.5, 2.0, 2.5])
    turned = Surface(
        kind=surface.kind if draw.random() < 0.5 else any_surface(draw).kind,
        scale=float(surface.scale * factor),
        stretch=surface.stretch,
        angle=surface.angle + draw.uniform(0.8, 2.3),
        contrast=surface.contrast,
    )
    return draw_surface(turned, draw, side)


def _spot(u: np.ndarray, v: np.ndarray, wide: float, high: float, soft: float) -> np.ndarray:
    distance = np.sqrt((u / wide) ** 2 + (v / high) ** 2)
    return 1 / (1 + np.exp(np.clip((distance - 1) * min(wide, high) / soft, -30, 30)))


def _line(u: np.ndarray, v: np.ndarray, length: float, width: float) -> np.ndarray:
    beyond = np.maximum(np.abs(u) - length / 2, 0)
    return np.exp(-((v / width) ** 2) / 2 - beyond**2 / 2)
