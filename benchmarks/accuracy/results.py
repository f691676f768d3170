"""Results on disk: one file of JSON lines for every method, one line for a task, a number of shots and a seed."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.origin import SOURCES, code_digest, content_digest
from benchmarks.peers.answers import Answers

SCHEMA = 1
PEERS_CODE = Path(__file__).parents[1] / "peers"

Key = tuple[str, int, int]  # task, shots, seed


def file_of(folder: Path, method: str) -> Path:
    """Where a method's lines are."""
    return folder / f"{method.replace(':', '-')}.jsonl"


def read_lines(folder: Path, method: str) -> dict[Key, dict[str, Any]]:
    """Everything measured of a method; of several lines for one cell the last. An unfinished last line is left out."""
    path = file_of(folder, method)
    texts = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    lines = [json.loads(text) for text in texts]
    return {(line["task"], line["shots"], line["seed"]): line for line in lines}


def append(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line, whole, under a lock: several processes may write. What a killed one left unfinished is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_of(folder, line["method"]).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        there = file.read()
        file.truncate(there.rfind(b"\n") + 1)
        file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def measured(answers: Answers, labels: NDArray[np.int64]) -> dict[str, Any]:
    """What is kept of the answers: ``right`` is a bit for every query picture, in hex."""
    chances = answers.probabilities
    right = chances.argmax(axis=1) == labels
    own = np.maximum(chances[np.arange(len(labels)), labels], 1e-12)
    return {
        "accuracy": float(right.mean()),
        "log_loss": float(-np.log(own).mean()),
        "right": np.packbits(right).tobytes().hex(),
        "query_pictures": len(labels),
        "trained": answers.trained,
        "stored_bytes": answers.stored,
        "seconds": round(answers.seconds, 2),
        "chosen": dict(answers.chosen),
    }


def right(line: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which query pictures a line's method got right, ``(m,)``."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(line["right"]), np.uint8))
    return bits[: line["query_pictures"]].astype(bool)


def code() -> str:
    """First 16 hex digits of a digest over the library's and the peers' code."""
    peers = content_digest(PEERS_CODE.glob("*.py"), PEERS_CODE)
    return hashlib.sha256(f"{code_digest()}{peers}{SOURCES.name}".encode()).hexdigest()[:16]


def missing(folder: Path, methods: Iterable[str], key: Key) -> list[str]:
    """Methods that were not measured in a cell."""
    return [method for method in methods if key not in read_lines(folder, method)]
