"""What an adapter would change, before anything changes."""

from typing import Any

from kusabi.adapters.outline import outline
from kusabi.adapters.targets import plan
from kusabi.errors import SpecError
from kusabi.recipes.beside import adapters_beside
from kusabi.recipes.question import open_backbone, read_pictures, use_device
from kusabi.recipes.watch import silent
from kusabi.spec import AUTO, AdaptSpec
from kusabi.training.birth import Birth, fresh_parts
from kusabi.training.depth_choice import open_depth

DEPTH_NOTE = "layers auto: as many entries may come to lie in all layers, after a look at the pictures; adapt tells"


def planned(source: str, spec: AdaptSpec, *, device: str = "cpu") -> dict[str, Any]:
    """Targets, counts and bytes as plain data, head entries beside them.

    Raises:
        KusabiError: Whatever the user can put right.
    """
    if spec.adapter.placement == AUTO:
        raise SpecError("--placement auto: where it leads is known after a look at the pictures; adapt tells")
    use_device(device, None)
    dataset = read_pictures(source, spec, silent)
    backbone = open_backbone(spec, device)
    weights = plan(backbone.module, backbone.blocks, spec.adapter)
    beside = adapters_beside(spec.adapter.beside, backbone)
    parts = fresh_parts(Birth(backbone, weights, spec, None, beside.taken))
    found = outline(backbone.module, backbone.blocks, parts).to_json()
    width = int(backbone.embed_texts(["a"]).shape[1])
    head = len(dataset.classes) * (width + 1) + 1 if spec.adapter.head == "prototypes" else 0
    described = backbone.card()
    return {
        **found,
        "head_entries": head,
        "bytes_with_head": found["bytes"] + 2 * head,
        "backbone": described,
        "share_of_backbone": found["entries"] / described["parameters"],
        "classes": list(dataset.classes),
        "notes": [DEPTH_NOTE] if open_depth(spec) else [],
    }
