"""sha256 of weights: as they are stored in files, and as they are in memory."""

import hashlib
import json
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kusabi.errors import BackboneError


def stored_digests(files: Iterable[Path]) -> dict[str, str]:
    """Name -> digest of every tensor in safetensors files, over dtype, shape and the bytes as stored.

    Raises:
        BackboneError: If a file is missing, damaged or truncated.
    """
    return {name: digest for file in files for name, digest in _digests_in(file)}


def whole_digest(digests: Mapping[str, str]) -> str:
    """One digest over all names and their digests, in the order of the names."""
    return hashlib.sha256(
        "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()


def module_digest(module: nn.Module) -> str:
    """Digest of all parameters and buffers in memory (buffers that are never saved too): equal means unchanged."""
    tensors: dict[str, Tensor] = {**module.state_dict(), **dict(module.named_buffers())}
    return whole_digest({name: _digest_in_memory(tensor) for name, tensor in tensors.items()})


def _digest_in_memory(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _digest(str(tensor.dtype), list(tensor.shape), content.data)


def _digest(dtype: str, shape: list[int], content: memoryview) -> str:
    digest = hashlib.sha256(json.dumps([dtype, shape]).encode())
    digest.update(content)
    return digest.hexdigest()


def _digests_in(file: Path) -> Iterator[tuple[str, str]]:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            (length,) = struct.unpack("<Q", mapped[:8])
            start = 8 + length
            if start > len(mapped):
                raise ValueError("the header is cut off")
            header = json.loads(mapped[8:start])
            for name, entry in header.items():
                if name != "__metadata__":
                    first, last = (start + int(offset) for offset in entry["data_offsets"])
                    if not start <= first <= last <= len(mapped):
                        raise ValueError(f"tensor '{name}' lies outside of the file")
                    with memoryview(mapped) as view, view[first:last] as content:
                        yield name, _digest(str(entry["dtype"]), list(entry["shape"]), content)
    except OSError as error:
        raise BackboneError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BackboneError(
            f"{file}: damaged or truncated ({error}); download it again (a few bytes only: run 'git lfs pull')"
        ) from None
