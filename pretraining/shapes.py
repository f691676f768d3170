"""Drawn shapes: a number of one coloured shape on a plain ground, with the caption that says so."""

import math
from dataclasses import dataclass

import numpy as np

from pretraining.phrases import COLOURS, NUMBERS, SHAPES

RGB = {
    "red": (220, 30, 35), "green": (30, 150, 50), "blue": (30, 60, 210), "black": (12, 12, 12),
    "white": (250, 250, 250), "teal": (0, 128, 128), "brown": (130, 75, 35), "gray": (128, 128, 128),
    "yellow": (245, 220, 40), "orange": (245, 140, 20), "purple": (125, 40, 150), "pink": (250, 150, 190),
}  # fmt: skip
SIDES = {"triangle": 3, "square": 4, "diamond": 4, "hexagon": 6}


@dataclass(frozen=True)
class ShapeDrawing:
    """What is to be drawn: everything that the caption says, and a seed for all the rest."""

    colour: str
    shape: str
    number: int
    seed: int

    @property
    def caption(self) -> str:
        """The sentence about this drawing."""
        if self.number == 1:
            return f"a{'n' * (self.colour[0] in 'aeiou')} {self.colour} {self.shape}"
        word = list(NUMBERS)[self.number - 1]
        return f"{word} {self.colour} {plural(self.shape)}"


def plural(noun: str) -> str:
    """English plural of the nouns used here."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def any_shape(seed: int) -> ShapeDrawing:
    """Draw parameters at random; most pictures have one shape, of the plainest kinds most often."""
    draw = np.random.default_rng([seed, 1])
    shapes = list(SHAPES)
    chances = np.array([4.0 if s in ("circle", "rectangle", "triangle", "square") else 1.0 for s in shapes])
    return ShapeDrawing(
        colour=str(draw.choice(list(COLOURS))),
        shape=str(draw.choice(shapes, p=chances / chances.sum())),
        number=int(draw.choice([1, 2, 3, 4, 5], p=[0.7, 0.1, 0.08, 0.06, 0.06])),
        seed=seed,
    )


def draw_shape(drawing: ShapeDrawing, side: int = 112) -> np.ndarray:
    """Draw it, shape ``(side, side, 3)``, uint8."""
    from PIL import Image, ImageDraw

    draw = np.random.default_rng([drawing.seed, 2])
    ink = np.clip(np.array(RGB[drawing.colour]) + draw.integers(-18, 19, 3), 0, 255)
    ground = _ground(ink, draw)
    canvas = Image.new("RGB", (2 * side, 2 * side), tuple(map(int, ground)))
    pen = ImageDraw.Draw(canvas)
    for x, y, radius in _places(drawing.number, draw):
        _one(pen, drawing.shape, 2 * side * x, 2 * side * y, 2 * side * radius, tuple(map(int, ink)), draw)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def _ground(ink: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    while True:
        kind = draw.random()
        ground = np.array([255, 255, 255]) if kind < 0.4 else draw.integers(0, 256, 3)
        ground = draw.integers(215, 256, 3) if 0.4 < kind < 0.7 else ground
        if np.abs(ground - ink).sum() > 140:
            return ground


def _places(number: int, draw: np.random.Generator) -> list[tuple[float, float, float]]:
    if number == 1:
        radius = draw.uniform(0.08, 0.42)
        x, y = draw.uniform(radius, 1 - radius, 2)
        return [(x, y, radius)]
    cells = draw.permutation(9)[:number] if number > 4 else draw.permutation(4)[:number]
    across = 3 if number > 4 else 2
    size = 0.5 / across
    return [
        ((c % across + 0.5) / across, (c // across + 0.5) / across, size * draw.uniform(0.5, 0.85))
        for c in map(int, cells)
    ]


def _one(pen, shape: str, x: float, y: float, r: float, ink: tuple[int, ...], draw: np.random.Generator) -> None:
    turn = draw.uniform(0, 2 * math.pi) if draw.random() < 0.3 else 0.0
    flat = draw.uniform(0.35, 0.75)
    match shape:
        case "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        case "ellipse":
            wide, high = (r, r * flat) if draw.random() < 0.5 else (r * flat, r)
            pen.ellipse((x - wide, y - high, x + wide, y + high), fill=ink)
        case "ring":
            pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=max(2, int(r * 0.25)))
        case "dot":
            pen.ellipse((x - r / 4, y - r / 4, x + r / 4, y + r / 4), fill=ink)
        case "rectangle":
            wide, high = (r, r * flat) if draw.random() < 0.5 else (r * flat, r)
            pen.rectangle((x - wide, y - high, x + wide, y + high), fill=ink)
        case "line":
            angle = draw.uniform(0, math.pi)
            dx, dy = r * math.cos(angle), r * math.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=max(3, int(r * 0.08)))
        case "cross":
            t = r * 0.3
            pen.rectangle((x - r, y - t, x + r, y + t), fill=ink)
            pen.rectangle((x - t, y - r, x + t, y + r), fill=ink)
        case "star":
            radii = [r if k % 2 == 0 else 0.42 * r for k in range(10)]
            pen.polygon(_polygon(x, y, radii, turn), fill=ink)
        case _:
            start = turn + (math.pi / 4 if shape == "square" and turn == 0 else 0)
            pen.polygon(_polygon(x, y, [r] * SIDES[shape], start), fill=ink)


def _polygon(x: float, y: float, radii: list[float], turn: float) -> list[tuple[float, float]]:
    angles = [turn + 2 * math.pi * k / len(radii) for k in range(len(radii))]
    return [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]
