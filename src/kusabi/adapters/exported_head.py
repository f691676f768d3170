"""The classifier of an adapter for those who have no Kusabi: two plain files and five lines that read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_tensors

from kusabi.adapters.prototypes import Prototypes
from kusabi.errors import AdapterError

HEAD, FACTS = "prototypes.safetensors", "kusabi.json"
SCHEMA = 1

READING = f"""\
```python
head, facts = load_file(folder / "{HEAD}"), json.loads((folder / "{FACTS}").read_text("utf-8"))
output = model.get_image_features(pixel_values=pixel_values).pooler_output
images = torch.nn.functional.normalize(output.float(), dim=-1)
logits = head["scale"] * (images @ head["directions"].T + head["offset"]) + head["bias"]
labels = [facts["classes"][index] for index in logits.argmax(dim=1).tolist()]
```

`{FACTS}` holds the class names, their prompts, and the `preprocessing` that the adapter was trained with: pictures
must be prepared that way, which is not always what the model's own processor does. Pictures of another size than
the model's own need `interpolate_pos_encoding=True`.
"""


@torch.no_grad()
def write_head(folder: Path, prototypes: Prototypes, card: Mapping[str, Any]) -> None:
    """Write ``prototypes.safetensors`` and ``kusabi.json``.

    The tensors are ``directions`` ``(C, D)``, ``offset`` ``(C,)``, ``scale`` and ``bias`` ``()``, all fp32: the text
    embeddings are in the directions already, so that no text has to be encoded again. The logits are bitwise those of
    ``prototypes``.

    Args:
        folder: Where to; flushed to the disk by whoever made it.
        prototypes: The classifier, around the text embeddings of the adapted model.
        card: The adapter's.

    Raises:
        AdapterError: If the classifier has another number of classes than the card.
    """
    check_classes(prototypes, card)
    tensors = {
        "directions": prototypes.text + prototypes.displacement,
        "offset": prototypes.offset,
        "scale": prototypes.base_scale * prototypes.log_gain.exp(),
        "bias": prototypes.bias,
    }
    own = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    (folder / HEAD).write_bytes(dump_tensors(own, {"format": "pt"}))
    write_json(folder / FACTS, facts_of(card))


def check_classes(prototypes: Prototypes, card: Mapping[str, Any]) -> None:
    """Refuse a classifier that is not of the card.

    Raises:
        AdapterError: If it has another number of classes.
    """
    if len(prototypes.text) != len(card["classes"]):
        raise AdapterError(f"the classifier has {len(prototypes.text)} classes, the card names {len(card['classes'])}")


def facts_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a program needs to know beside the weights: classes in the order of the logits, prompts, preprocessing."""
    return {
        "schema_version": SCHEMA,
        "adapter": card.get("digest"),
        "backbone": {key: card["backbone"].get(key) for key in ("source", "revision", "digest", "preprocessing")},
        "classes": list(card["classes"]),
        "prompts": card["prompts"],
    }


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Plain data as a file that reads well and never depends on the order of the fields."""
    text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(text.encode())
