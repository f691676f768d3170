"""From a folder on disk to an adapter that answers; and how many bytes that folder has.

Ours is read, checked against its digest and against the backbone's, and attached; PEFT's is whatever
``from_pretrained`` does, on a model that is loaded already. Folders lie in the page cache: all were read before.
"""

import tempfile
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft

from benchmarks.speed.adapters import ours, peft_model
from benchmarks.speed.clock import now
from benchmarks.speed.conditions import Conditions
from benchmarks.speed.peers import RANK
from benchmarks.speed.record import Record, Spread, spread
from benchmarks.speed.swap import DENSITY
from kusabi.adapters.attach import attached
from kusabi.adapters.card import check_backbone
from kusabi.adapters.checkpoint import load_adapter, save_adapter
from kusabi.backbones.backbone import Backbone
from kusabi.spec import AdapterSpec

PEERS = ("lora", "shira")


def loading(conditions: Conditions) -> list[Record]:
    """Seconds and bytes, on all linear maps of both towers."""
    backbone = conditions.load()
    with tempfile.TemporaryDirectory() as made:
        folders = {name: Path(made) / name for name in ("ours", *PEERS)}
        adapter = ours(backbone, DENSITY)
        save_adapter(folders["ours"], adapter)
        trained = {}
        for name in PEERS:
            model = peft_model(name, backbone)
            model.save_pretrained(folders[name])
            trained[name] = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        own, taken = {}, {}
        for name in PEERS:  # ours again before each, so that both see the machine in the same state
            own[name] = _ready(folders["ours"], backbone, conditions)
            taken[name] = _loaded(folders[name], backbone, conditions)
    entries = sum(map(len, adapter.parts))
    return [
        Record(
            f"loading_{name}", conditions.model, f"{DENSITY:.1%} against rank {RANK}",
            taken[name].median / own[name].median, asdict(own[name]), asdict(taken[name]),
            {"entries": entries, "peer trains": trained[name]},
        )
        for name in PEERS
    ]  # fmt: skip


def stored(conditions: Conditions) -> list[Record]:
    """Bytes of the weights' file, of ours at two densities; the whole folder's stand beside them."""
    backbone, records = conditions.load(), []
    with tempfile.TemporaryDirectory() as made:
        model: Any = peft_model("shira", backbone)
        other = Path(made) / "shira"
        model.save_pretrained(other)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        peer = _sizes(other, trained)
        for density in (DENSITY, AdapterSpec().density):
            folder, adapter = Path(made) / str(density), ours(backbone, density)
            save_adapter(folder, adapter)
            entries = sum(map(len, adapter.parts))
            own = _sizes(folder, entries)
            value = own["bytes an entry"] / peer["bytes an entry"]
            records.append(Record("stored", conditions.model, f"{density:.1%}", value, own, peer, {"entries": entries}))
    return records


def _sizes(folder: Path, trained: int) -> dict[str, float]:
    (weights,) = folder.glob("*.safetensors")
    return {
        "bytes an entry": weights.stat().st_size / trained,
        "bytes an entry, whole folder": sum(path.stat().st_size for path in folder.iterdir()) / trained,
    }


def _ready(folder: Path, backbone: Backbone, conditions: Conditions) -> Spread:
    """As ``kusabi predict`` gets ready, on a backbone that is loaded."""
    taken = []
    for _ in range(2 * conditions.repeats + 1):
        with ExitStack() as stack:
            began = now(conditions.device)
            adapter = load_adapter(folder)
            check_backbone(adapter.card, backbone.digest, backbone.tensor_digests, backbone.preprocessing.to_json())
            stack.enter_context(attached(backbone.module, *adapter.parts))
            taken.append(now(conditions.device) - began)
    return spread(taken[1:])


def _loaded(folder: Path, backbone: Backbone, conditions: Conditions) -> Spread:
    """PEFT changes the model that it is given: every time a fresh copy, made before the clock starts."""
    taken = []
    for _ in range(conditions.repeats):
        module: Any = deepcopy(backbone.module)
        began = now(conditions.device)
        peft.PeftModel.from_pretrained(module, folder)
        taken.append(now(conditions.device) - began)
    return spread(taken)
