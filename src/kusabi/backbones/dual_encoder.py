"""Load CLIP, SigLIP and other two-tower Hugging Face models: config first, weights last, never foreign code."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from kusabi.backbones.backbone import Backbone
from kusabi.backbones.digest import stored_digests, whole_digest
from kusabi.backbones.families import Family
from kusabi.backbones.input_sizes import input_sizes
from kusabi.backbones.licence import read_licence
from kusabi.backbones.model_folder import ModelFolder, locate
from kusabi.backbones.preprocessing import Fit, read_preprocessing
from kusabi.backbones.private_memory import own_memory
from kusabi.backbones.weights import names_in_memory, stored_scalar, weight_files
from kusabi.errors import BackboneError, listed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")

# What transformers and tokenizers raise on folders that do not fit together; each becomes one plain line.
_LOADING = (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, SafetensorError)


def load_backbone(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    input_size: int | None = None,
    fit: Fit = "pad",
) -> Backbone:
    """A frozen two-tower model.

    Args:
        source: A model folder, a Hub id, or ``mini`` for the embedded one.
        revision: Commit, branch or tag of a Hub id; the commit it stands for is recorded.
        dtype: Type of the resident weights: float32, bfloat16 or float16. The logit scale stays exact.
        device: Where the weights live, as torch names it.
        input_size: Pixels a side, where the model's own is not wanted.
        fit: How a picture that is not square fits: pad, squash or crop.

    Raises:
        BackboneError: If the model cannot be found, is of a kind that is not supported, has no safetensors weights,
            is incomplete, or cannot take the input size.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is not known; choose {', '.join(DTYPES)}")
    place = _device(device)
    folder = locate(source, revision)
    path, family = folder.path, folder.family
    with _quiet():
        config: Any = _try(folder, "config.json", lambda: AutoConfig.from_pretrained(path, trust_remote_code=False))
        sizes = _try(folder, "config.json", lambda: input_sizes(config, family))
        preprocessing = read_preprocessing(path, sizes, input_size, fit)
        files = weight_files(path)
        tokenizer = _tokenizer(folder)
        stored = stored_digests(files)
        module = _try(folder, "model", lambda: _module(folder, config, DTYPES[dtype]))
        tensors = {name: stored[key] for key, name in names_in_memory(module, stored).items()}
        blocks = _try(folder, "layout", lambda: _blocks(module, family))
    scale, bias = _similarity(family, files)
    return Backbone(
        module=own_memory(module.to(place)).eval().requires_grad_(False),
        tokenizer=tokenizer,
        source=folder.source,
        family=family.model_type,
        revision=folder.revision,
        licence=read_licence(path).name,
        preprocessing=preprocessing,
        digest=whole_digest(stored),
        tensor_digests=tensors,
        blocks=blocks,
        scale=scale,
        bias=bias,
        similarity=family.similarity,
        device=place,
        dtype=DTYPES[dtype],
        input_sizes=sizes,
        text_length=_text_length(config.text_config, family, tokenizer),
        full_length=family.full_length,
        class_token=family.class_token,
    )


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"device {name!r} cannot be used here ({_first_line(error)}); choose cpu") from None


def _tokenizer(folder: ModelFolder) -> PreTrainedTokenizerBase:
    # Without any of them transformers makes up an empty vocabulary of the model's family, and every name means nothing.
    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.path.glob(pattern)):
        raise BackboneError(
            f"{folder.path}: no tokenizer here (none of {', '.join(_VOCABULARIES)}); copy its files from where "
            "the model came from"
        )
    tokenizer = _try(
        folder,
        "tokenizer",
        lambda: AutoTokenizer.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True),
    )
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"{folder.path}: the tokenizer has no padding token; set pad_token in tokenizer_config.json"
        )
    return tokenizer


def _module(folder: ModelFolder, config: Any, dtype: torch.dtype) -> Any:
    module, report = getattr(transformers, folder.family.architecture).from_pretrained(
        folder.path,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackboneError(
            f"{folder.path}: {len(missing)} tensors are missing from the weights: {listed(missing)}; "
            "the model is incomplete"
        )
    return module


def _similarity(family: Family, files: tuple[Path, ...]) -> tuple[float, float]:
    """Inverse temperature and bias of the logits."""
    if family.model_type == "align":
        return 1 / stored_scalar(files, "temperature"), 0.0
    scale = exp(stored_scalar(files, "logit_scale"))
    return scale, stored_scalar(files, "logit_bias") if family.similarity == "sigmoid" else 0.0


def _blocks(module: nn.Module, family: Family) -> dict[str, tuple[str, ...]]:
    """Tower -> names of its blocks; transformers releases that lay a model out otherwise have no such list."""
    lists = {"vision": family.vision_blocks, "text": family.text_blocks}
    return {
        tower: tuple(f"{path}.{index}" for index, _ in module.get_submodule(path).named_children())
        for tower, path in lists.items()
    }


def _text_length(text_config: Any, family: Family, tokenizer: PreTrainedTokenizerBase) -> int:
    positions = text_config.max_position_embeddings
    if family.shifted_positions:
        positions -= text_config.pad_token_id + 1
    return min(positions, tokenizer.model_max_length)


def _try(folder: ModelFolder, what: str, load: Any) -> Any:
    try:
        return load()
    except _LOADING as error:
        raise BackboneError(
            f"{folder.path}: the {what} cannot be loaded as {folder.family.architecture}: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers while a model loads."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        if shown:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                logging.enable_progress_bar()
