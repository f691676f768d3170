"""ProLIP (Fahes et al., 2024, arXiv 2410.05270): the last linear map of the vision tower learns, near where it began.

``loss = cross-entropy + |W - W0|^2 / N`` with ``N`` shots, on stored inputs of the map: one view of all pictures at a
time. The authors' 300 such rounds are kept whatever the number of steps of other methods; they cost seconds.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import single_threaded
from benchmarks.peers.material import Material, projected, projection
from benchmarks.peers.settings import SETTINGS
from kusabi.errors import BackboneError

ROUNDS = 300


@single_threaded()
def prolip(material: Material, strength: float | None = None) -> Answers:
    """Train the map; ``strength`` of the pull to its start is ``1 / shots`` when absent.

    Raises:
        BackboneError: When the vision tower's features do not come out of a linear map.
    """
    layer = projection(material.backbone.module)
    if layer is None or material.pooled is None:
        raise BackboneError(
            f"ProLIP trains the last linear map of a vision tower, and {material.backbone.family} models have none; "
            "leave ProLIP out"
        )
    started = now()
    strength = 1 / material.shots if strength is None else strength
    first = layer.weight.detach().float()
    bias = None if layer.bias is None else layer.bias.detach().float()
    weight = nn.Parameter(first.clone())
    setting = SETTINGS["prolip"]
    optimizer = torch.optim.Adam([weight], lr=setting.rate, eps=setting.epsilon)
    pooled, query_pooled = material.pooled
    by_view = pooled.reshape(-1, material.pictures, pooled.shape[1])
    labels, text = material.views.labels[: material.pictures], material.text[: material.classes]
    for number in range(ROUNDS):
        optimizer.param_groups[0]["lr"] = setting.rate * 0.5 * (1 + math.cos(math.pi * number / ROUNDS))
        features = projected(by_view[number % len(by_view)], weight, bias)
        fit = F.cross_entropy(material.backbone.scale * features @ text.T, labels)
        (fit + strength * ((weight - first) ** 2).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    learned = now()
    with torch.no_grad():
        logits = material.backbone.scale * projected(query_pooled, weight, bias) @ material.text.T
    return answered(
        logits[:, : material.classes], logits, trained=weight.numel(), stored=FLOAT * weight.numel(), started=started,
        learned=learned,
    )  # fmt: skip
