"""Icons into pixels: parallel rendering to memory-mapped arrays, alpha kept so that backgrounds stay free."""

import io
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pretraining.sources import Icon

SIDE = 112


def render_icon(icon: Icon, side: int = SIDE) -> np.ndarray:
    """Draw one icon as RGBA, shape ``(side, side, 4)``, uint8; all zero if the drawing is broken."""
    import resvg_py
    from PIL import Image

    box = " ".join(map(str, icon.box))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'viewBox="{box}" width="{side}" height="{side}">{icon.body}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    except ValueError:
        return np.zeros((side, side, 4), np.uint8)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((side, side)))


def _render_block(job: tuple[list[Icon], Path, int, int, int]) -> None:
    icons, path, start, total, channels = job
    store = np.memmap(path, np.uint8, "r+", shape=(total, SIDE, SIDE, channels))
    for offset, icon in enumerate(icons):
        store[start + offset] = render_icon(icon)[..., 4 - channels :]


def render_all(icons: list[Icon], path: Path, channels: int) -> np.ndarray:
    """Render icons once into ``path``; shape ``(n, 112, 112, channels)``.

    Args:
        icons: In the order of the store.
        path: The finished store; written aside and renamed, so that it is whole or absent.
        channels: 4 for colour, 1 to keep the alpha of single-colour icons alone.
    """
    shape = (len(icons), SIDE, SIDE, channels)
    if not path.exists():
        partial = path.with_suffix(".partial")
        np.memmap(partial, np.uint8, "w+", shape=shape).flush()
        jobs = [(icons[i : i + 500], partial, i, len(icons), channels) for i in range(0, len(icons), 500)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_render_block, jobs))
        partial.rename(path)
    return np.memmap(path, np.uint8, "r", shape=shape)
