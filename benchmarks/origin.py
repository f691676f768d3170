"""What a run depends on, as one digest: a finished run is taken over only where all of it is unchanged."""

import hashlib
import json
from pathlib import Path

import kusabi
from kusabi.recipes.environment import environment
from kusabi.spec import AdaptSpec

SOURCES = Path(kusabi.__file__).parent
NOT_MEASURED = ("cli.py", "report")  # they show results and change none


def origin(spec: AdaptSpec, pictures: Path, device: str, threads: int | None) -> str:
    """The first 16 hex digits of a sha256 over what was asked, environment, code, embedded backbone and pictures."""
    asked = [spec.digest, device, threads, environment()]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    code = (path for path in SOURCES.rglob("*.py") if path.relative_to(SOURCES).parts[0] not in NOT_MEASURED)
    backbone = (path for path in (SOURCES / "backbones" / "mini").iterdir() if path.suffix in (".json", ".safetensors"))
    for root, paths in ((SOURCES, [*code, *backbone]), (pictures, pictures.rglob("*.*"))):
        for path in sorted(paths):
            digest.update(
                f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
            )
    return digest.hexdigest()[:16]
