"""One picture file becomes 8-bit RGB, the same on every machine.

What happens to pictures that are not plain:

- **EXIF orientation** is applied; EXIF data that cannot be read is ignored.
- **More than 8 bits** (16-bit grey, 32-bit integers, floats): divided by the smallest of 1, 16 and 256 that brings the
  picture's own maximum below 256, so that pictures of a 12-bit camera stored in 16 bits are not black. Floats between 0
  and 1 are multiplied by 255. Values below 0 or above 65,535 make the picture's own range stretch to 0..255; values
  that are not finite become the smallest that is. (16 bits a channel in colour: the upper 8 bits.)
- **Transparency** of any kind (alpha, palette, one transparent colour) is laid on white.
- **CMYK, palette, grey, bilevel** and other colour modes are converted by Pillow; colour profiles are not applied.
- **Animations and multi-page files** give their first page.
- **Any shape** down to 1 x 1 works; more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` (179 megapixels in all) is refused.
- **Truncated** pictures are refused, never filled with grey.
"""

import contextlib
import hashlib
import threading
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from kusabi.errors import DataError

# Formats of pictures only: none that runs another program (EPS), and none without a signature (TGA), which random
# bytes can pass for.
FORMATS = (
    "PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "DIB", "PCX", "PSD", "SGI", "ICO", "DDS",
    "QOI",
)  # fmt: skip

# A fixed list, not Pillow's registry of the day, so that a folder holds the same pictures on every machine.
SUFFIXES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".bw", ".dds", ".dib", ".gif", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc",
    ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd",
    ".qoi", ".rgb", ".rgba", ".sgi", ".tif", ".tiff", ".webp",
})  # fmt: skip

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_picture(path: Path) -> Image.Image:
    """The decoded picture, RGB, 8 bits a channel, turned as its EXIF data say.

    Raises:
        DataError: If there is no such file, or it is empty, damaged, truncated, too big or no picture.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder; give the pictures in it")
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    try:
        return decode_picture(path)
    except DataError as error:
        raise DataError(f"{path}: {error}; save the picture again from its original, or remove it") from None


def decode_picture(source: Path | IO[bytes]) -> Image.Image:
    """As ``open_picture``, also of bytes.

    Raises:
        DataError: With the bare reason: only the caller knows what to call the picture.
    """
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_PILLOW_SILENCED)
            file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            if file.seek(0, 2) == 0:
                raise DataError("the file is empty")
            Image.init()
            known = [name for name in FORMATS if name in Image.OPEN]
            image = stack.enter_context(Image.open(file, formats=known))
            if 0 in image.size:
                raise DataError(f"{image.width} x {image.height} pixels are no picture")
            image.load()
            turn = _TURNS.get(_orientation(image))
            picture = _rgb(image)
            return picture if turn is None else picture.transpose(turn)
    except DataError:
        raise
    except MemoryError:
        raise DataError("more pixels than there is memory for, or damaged") from None
    except UnidentifiedImageError:
        raise DataError("not a picture in a format that is read here, or damaged") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels; scale the picture down ({error})") from None
    except OSError as error:
        raise DataError(error.strerror or str(error)) from None
    except Exception as error:
        # Decoders meet damaged bytes with exceptions of every kind.
        raise DataError(f"damaged ({type(error).__name__}: {error})") from None


def pixel_digest(image: Image.Image) -> str:
    """sha256, in hex, over the size and the RGB bytes: equal exactly for the same pixels, whatever the file."""
    image = image.convert("RGB")
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # the pixels are fine even where the EXIF data are not
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        grey = _eight_bits(values)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: NDArray) -> NDArray[np.uint8]:
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65_535:
        scaled = np.rint((values.astype(np.float64) - low) / ((high - low) or 1.0) * 255)
    elif values.dtype.kind == "f" and high <= 1:
        scaled = np.rint(values * 255)
    else:
        scaled = values // (1 if high < 256 else 16 if high < 4096 else 256)
    return scaled.astype(np.uint8)


class _Silence:
    """Hides warnings (of odd files, by Pillow) until the last thread inside has left.

    ``warnings.catch_warnings`` alone is not safe between threads: the one that leaves last would restore the silence
    of another.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_PILLOW_SILENCED = _Silence()
