"""How pictures become the pixels a model was trained on, without torchvision.

By default the whole picture is shown: a centre crop, which most processors make, can cut the defect off.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kusabi.backbones.input_sizes import InputSizes
from kusabi.backbones.model_folder import read_json
from kusabi.errors import BackboneError

Fit = Literal["pad", "squash", "crop"]

_REDUCING_GAP = 3.0  # big reductions go through a box filter first: much faster, no visible difference
_BICUBIC = int(Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture.

    ``size`` is in pixels a side; ``mean`` and ``std`` are per channel, of values in [0, 1]; ``resample`` is PIL's
    number. ``fit`` is ``pad`` (the whole picture, centred on the mean colour), ``squash`` (its shape is lost) or
    ``crop`` (the central square).
    """

    size: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``from_json(to_json(p)) == p``."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """The value that ``to_json`` wrote."""
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def read_preprocessing(folder: Path, sizes: InputSizes, input_size: int | None, fit: Fit) -> Preprocessing:
    """What the processor files of a model folder ask for.

    ``input_size`` overrides their size, and ``fit`` always their crop.

    Raises:
        BackboneError: If the files are missing or cannot be followed, or the size does not fit the model.
    """
    if fit not in get_args(Fit):
        raise BackboneError(f"fit {fit!r} is not known; choose {', '.join(get_args(Fit))}")
    path, fields = _processor(folder)
    size = input_size if input_size is not None else _own_size(fields, sizes, path)
    sizes.check(size, str(folder))
    mean, std = _normalisation(fields, path)
    return Preprocessing(size, fit, mean, std, _resample(fields, path))


def pixels(images: Sequence[Image.Image], preprocessing: Preprocessing) -> Tensor:
    """Normalised pixels of pictures, shape ``(B, 3, size, size)``, float32, on the CPU."""
    size = preprocessing.size
    batch = np.zeros((len(images), 3, size, size), np.float32)  # zero is the mean colour, once normalised

    def fill(index: int) -> None:
        image = images[index]
        _place(image if image.mode == "RGB" else image.convert("RGB"), preprocessing, batch[index])

    with ThreadPoolExecutor(max(1, min(len(images), torch.get_num_threads()))) as pool:
        list(pool.map(fill, range(len(images))))
    return torch.from_numpy(batch)


def _place(image: Image.Image, preprocessing: Preprocessing, out: NDArray[np.float32]) -> None:
    """Write one picture into ``out``, shape ``(3, size, size)``."""
    size, box = preprocessing.size, (0.0, 0.0, float(image.width), float(image.height))
    width = height = size
    if preprocessing.fit == "pad":
        longest = max(image.size)
        width, height = (max(1, round(side * size / longest)) for side in image.size)
    elif preprocessing.fit == "crop":
        shortest = min(image.size)
        left, top = ((side - shortest) / 2 for side in image.size)
        box = (left, top, left + shortest, top + shortest)
    if box != (0, 0, width, height):
        image = image.resize((width, height), preprocessing.resample, box=box, reducing_gap=_REDUCING_GAP)
    left, top = (size - width) // 2, (size - height) // 2
    values = np.asarray(image, np.float32) / np.float32(255)
    mean, std = (np.asarray(triple, np.float32) for triple in (preprocessing.mean, preprocessing.std))
    out[:, top : top + height, left : left + width] = ((values - mean) / std).transpose(2, 0, 1)


def _processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    fields = read_json(path).get("image_processor") if path.is_file() else None
    if not isinstance(fields, dict):
        raise BackboneError(f"{folder}: no preprocessor_config.json here; add the one of the original model")
    return path, fields


def _own_size(fields: Mapping[str, Any], sizes: InputSizes, path: Path) -> int:
    """Pixels a side that the processor hands to the model."""
    if sizes.resizing == "patches":  # this processor counts patches
        return sizes.own
    cropped = fields.get("do_center_crop", "crop_size" in fields)
    size = fields.get("crop_size" if cropped else "size") or fields.get("size") or sizes.own
    sides = list(size.values()) if isinstance(size, Mapping) else [size]
    if not all(isinstance(side, int) and side == sides[0] > 0 for side in sides):
        raise BackboneError(f"{path}: size {size} is not one square size; give an input size")
    return sides[0]


def _normalisation(
    fields: Mapping[str, Any], path: Path
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of values in [0, 1] that equal the processor's own rescaling and normalisation."""
    normalised = fields.get("do_normalize", True)
    mean = _triple(fields, "image_mean", path) if normalised else np.zeros(3)
    std = _triple(fields, "image_std", path) if normalised else np.ones(3)
    factor = 255 * _rescaling(fields, path) if fields.get("do_rescale", True) else 255.0
    factor = 1.0 if abs(factor - 1) < 1e-6 else factor
    if str(fields.get("image_processor_type", "")).startswith("EfficientNet"):  # ALIGN
        mean = mean + bool(fields.get("rescale_offset", False))
        std = std * _triple(fields, "image_std", path) if fields.get("include_top", True) else std
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise BackboneError(
            f"{path}: mean {mean.tolist()} or deviation {std.tolist()} makes no sense; restore the file"
        )
    red, green, blue = (mean / factor).tolist()
    wide, middle, narrow = (std / factor).tolist()
    return (red, green, blue), (wide, middle, narrow)


def _resample(fields: Mapping[str, Any], path: Path) -> int:
    """PIL's number of the filter."""
    value = fields.get("resample")
    if value is None:
        return _BICUBIC
    if value not in [int(known) for known in Image.Resampling]:
        raise BackboneError(
            f"{path}: 'resample' is {value!r}, which is none of PIL's numbers 0 to {max(Image.Resampling)}; restore "
            "the file"
        )
    return int(value)


def _rescaling(fields: Mapping[str, Any], path: Path) -> float:
    value = fields.get("rescale_factor") or 1 / 255
    try:
        factor = float(value)
    except (TypeError, ValueError, OverflowError):
        factor = 0.0
    if not 0 < factor < np.inf:
        raise BackboneError(f"{path}: 'rescale_factor' is {value!r}, which is no positive number; restore the file")
    return factor


def _triple(fields: Mapping[str, Any], key: str, path: Path) -> NDArray[np.float64]:
    try:
        value = np.asarray(fields[key], np.float64)
        return np.broadcast_to(value, 3)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BackboneError(f"{path}: '{key}' should be three numbers; restore the file") from None
