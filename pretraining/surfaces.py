"""Drawn surfaces: families of textures made from noise filtered in the frequency domain, and waves."""

import math
from dataclasses import dataclass

import numpy as np

from pretraining.phrases import TEXTURES

SIDE = 224
DIRECTIONS = 4  # orientation is told in steps of 45 degrees
DIRECTED = frozenset(
    {
        "woven fabric",
        "knitted fabric",
        "brushed metal",
        "wood grain",
        "striped cloth",
        "checked cloth",
        "noise",
        "marble",
    }
)


@dataclass(frozen=True)
class Surface:
    """Which texture, how large its grain in pixels, how stretched, which way, how strong."""

    kind: str
    scale: float
    stretch: float
    angle: float  # radians, 0 to pi
    contrast: float

    @property
    def direction(self) -> int:
        """The orientation in steps of 45 degrees, or -1 where the texture has none."""
        return round(self.angle / (math.pi / DIRECTIONS)) % DIRECTIONS if self.kind in DIRECTED else -1

    @property
    def size(self) -> int:
        """Grain in three classes: fine, middle, coarse."""
        return int(np.digitize(self.scale, [1.6, 3.2]))


def any_surface(draw: np.random.Generator, kind: str | None = None) -> Surface:
    """Choose a surface at random."""
    kind = kind or str(draw.choice(list(TEXTURES)))
    return Surface(
        kind=kind,
        scale=float(np.exp(draw.uniform(math.log(0.8), math.log(6.0)))),
        stretch=float(np.exp(draw.uniform(0.2, 2.2))) if kind in DIRECTED else 1.0,
        angle=float(draw.uniform(0, math.pi)),
        contrast=float(draw.uniform(0.06, 0.22)),
    )


def draw_surface(surface: Surface, draw: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Draw it, shape ``(side, side)``, float, around 0.5 with the surface's contrast as its deviation."""
    s, angle = surface.scale, surface.angle
    along, across = _axes(side, angle)
    match surface.kind:
        case "woven fabric":
            warp = noise(draw, side, s, surface.stretch * 3, angle)
            weft = noise(draw, side, s, surface.stretch * 3, angle + math.pi / 2)
            period = 2 * s + 2
            over = np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period)
            field = warp * (1 + over) + weft * (1 - over)
        case "knitted fabric":
            period = 3 * s + 4
            bend = np.abs((across / period) % 1 - 0.5) * period
            field = np.sin(2 * np.pi * (along + bend) / period) + 0.7 * noise(draw, side, s, 2, angle)
        case "brushed metal":
            field = noise(draw, side, 0.6 * s, 12 * surface.stretch, angle)
        case "wood grain":
            warped = across + 6 * noise(draw, side, 14 * s, 4, angle)
            field = np.sin(2 * np.pi * warped / (4 * s + 4)) + 0.6 * noise(draw, side, s, 10, angle)
        case "striped cloth":
            field = np.sign(np.sin(2 * np.pi * across / (5 * s + 4))) + 0.5 * noise(draw, side, 1, 2, angle)
        case "checked cloth":
            period = 8 * s + 6
            field = np.sign(np.sin(2 * np.pi * across / period)) + np.sign(np.sin(2 * np.pi * along / period))
            field = field + 0.6 * noise(draw, side, 1, 2, angle)
        case "felt":
            field = noise(draw, side, s, 1, 0) + 0.6 * noise(draw, side, 0.7, 4, draw.uniform(0, np.pi))
        case "cast metal":
            field = noise(draw, side, 2 * s, 1, 0) + 0.4 * noise(draw, side, 0.7, 1, 0)
        case "marble":
            warped = across + 20 * noise(draw, side, 12 * s, 1, 0)
            field = 1 - 2 * np.abs(np.sin(2 * np.pi * warped / (24 * s + 20))) ** 0.5
        case "paper":
            field = 0.4 * noise(draw, side, 0.7 * s, 1, 0)
        case "leather":
            field = -(np.abs(noise(draw, side, 2 * s, 1, 0)) ** 0.7) + 0.2 * noise(draw, side, 0.8, 1, 0)
        case "concrete":
            specks = np.maximum(noise(draw, side, 1.2 * s, 1, 0) - 1.5, 0)
            field = noise(draw, side, 10 * s, 1, 0) + 0.5 * noise(draw, side, 1, 1, 0) - 2 * specks
        case "smooth surface":
            field = 0.12 * noise(draw, side, 0.7, 1, 0) + 0.3 * noise(draw, side, 30 * s, 1, 0)
        case "gradient":
            field = 2 * along / side + 0.1 * noise(draw, side, 0.7, 1, 0)
        case "grain":
            field = noise(draw, side, 0.5 * s, 1, 0)
        case _:
            field = noise(draw, side, s, surface.stretch, angle)
    strength = {"paper": 0.4, "smooth surface": 0.25}.get(surface.kind, 1.0)
    field = (field - field.mean()) / (field.std() + 1e-6)
    return 0.5 + strength * surface.contrast * field


def noise(draw: np.random.Generator, side: int, scale: float, stretch: float, angle: float) -> np.ndarray:
    """Gaussian noise of unit deviation, correlated over ``scale`` pixels and ``stretch`` times that along ``angle``."""
    white = np.fft.rfft2(draw.standard_normal((side, side), dtype=np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    along = fx * math.cos(angle) + fy * math.sin(angle)
    across = -fx * math.sin(angle) + fy * math.cos(angle)
    keep = np.exp(-2 * (np.pi * scale) ** 2 * 0.5 * ((stretch * along) ** 2 + across**2))
    field = np.fft.irfft2(white * keep, s=(side, side))
    return (field - field.mean()) / (field.std() + 1e-6)


def _axes(side: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:side, :side]
    return x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
