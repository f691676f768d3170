"""What a run depends on, as one digest: a finished run is taken over only where all of it is unchanged."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import kusabi
from kusabi.recipes.environment import environment
from kusabi.spec import AdaptSpec

SOURCES = Path(kusabi.__file__).parent
NOT_MEASURED = ("cli.py", "report")  # they show results and change none
BACKBONE = SOURCES / "backbones" / "mini"


def origin(spec: AdaptSpec, pictures: Path, device: str, threads: int | None) -> str:
    """The first 16 hex digits of a sha256 over what was asked, environment, code, embedded backbone and pictures."""
    asked = [spec.digest, device, threads, environment(), code_digest(), content_digest(pictures.rglob("*"), pictures)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@cache  # the code that runs is the code that was imported, whatever happens to the files meanwhile
def code_digest() -> str:
    """sha256 over the library's code and the embedded backbone, as far as results depend on them."""
    code = (path for path in SOURCES.rglob("*.py") if path.relative_to(SOURCES).parts[0] not in NOT_MEASURED)
    model = (path for path in BACKBONE.iterdir() if path.suffix == ".safetensors" or "config" in path.name)
    return content_digest([*code, *model, BACKBONE / "tokenizer.json"], SOURCES)


def content_digest(paths: Iterable[Path], root: Path) -> str:
    """sha256 over names (relative to a root) and bytes of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
