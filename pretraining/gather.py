"""Everything that is learned from, gathered in one place: icons, drawings, captions and the teacher's embeddings."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pretraining.drawings import Textures, draw_shapes, texture_captions
from pretraining.losses import Pictures
from pretraining.render import render_all
from pretraining.shapes import any_shape
from pretraining.sources import VALIDATION, Icon, fetch, may_train, read_flags, read_icons, shared_captions
from pretraining.teacher import embed

SHAPE_PICTURES, TEXTURE_PICTURES = 8000, 16000
SENTENCES = 100_000  # about things, for the text tower; half as many again in Japanese


@dataclass(frozen=True)
class Sources:
    """The unpacked packages, every icon that may be trained on, and those whose captions are shared."""

    folders: dict[str, Path]
    icons: list[Icon]
    shared: set[str]


def read_sources(cache: Path) -> Sources:
    """Fetch the packages and read the icons whose licences and vendors allow training."""
    folders = fetch(cache)
    icons = read_icons(folders["icons"], lambda name, info: may_train(name, info) and name not in VALIDATION)
    icons += read_flags(folders["icons"], folders["emoji"])
    return Sources(folders, icons, shared_captions(icons))


def drawn_captions() -> set[str]:
    """Every caption of the drawn pictures."""
    return {any_shape(seed).caption for seed in range(SHAPE_PICTURES)} | set(texture_captions())


def gather(sources: Sources, cache: Path) -> Pictures:
    """Render and draw what is absent from the cache, and embed all captions."""
    kept = [icon for icon in sources.icons if icon.caption in sources.shared]
    colour, mono = ([icon for icon in kept if icon.colour is wanted] for wanted in (True, False))
    captions = sorted(sources.shared | drawn_captions())
    row = {caption: index for index, caption in enumerate(captions)}
    shapes, shape_names = draw_shapes(SHAPE_PICTURES, cache)
    return Pictures(
        captions=captions,
        embeddings=embed(captions, cache),
        colour=render_all(colour, cache / "colour.u8", 4),
        colour_rows=np.array([row[icon.caption] for icon in colour]),
        mono=render_all(mono, cache / "mono.u8", 1),
        mono_rows=np.array([row[icon.caption] for icon in mono]),
        shapes=shapes,
        shape_rows=np.array([row[name] for name in shape_names]),
        textures=Textures(TEXTURE_PICTURES, cache, row),
    )
