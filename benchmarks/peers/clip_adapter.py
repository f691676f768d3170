"""CLIP-Adapter (Gao et al., IJCV 2024, arXiv 2110.04544): a small bottleneck on the picture features, blended in.

``feature = ratio * relu(relu(x A) B) + (1 - ratio) * x``, made a unit vector. The authors feed features before they are
normalised; without biases a ReLU network only scales with its input, so that unit features give the same answer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend, seeded, single_threaded
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS

RATIO, REDUCTION = 0.2, 4  # section 4.1


class Bottleneck(nn.Module):
    """Two linear maps without bias, a ReLU after each.

    Args:
        width: Of the features.
        reduction: By how much the middle is narrower.
    """

    def __init__(self, width: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        self.down = nn.Linear(width, max(1, width // reduction), bias=False)
        self.up = nn.Linear(max(1, width // reduction), width, bias=False)

    def forward(self, features: Tensor, ratio: float) -> Tensor:
        """Blended unit features."""
        own = F.relu(self.up(F.relu(self.down(features))))
        return F.normalize(ratio * own + (1 - ratio) * features, dim=-1)


@single_threaded()
def clip_adapter(material: Material, ratio: float = RATIO) -> Answers:
    """Train the bottleneck on the views; new classes are answered by their texts from the same features."""
    started = now()
    views, text, scale = material.views, material.text, material.backbone.scale
    with seeded(material):
        adapter = Bottleneck(text.shape[1]).to(text.device)

        def loss_of(rows: Tensor) -> Tensor:
            logits = scale * adapter(views.features[rows], ratio) @ text[: material.classes].T
            return F.cross_entropy(logits, views.labels[rows])

        parameters = list(adapter.parameters())
        descend("CLIP-Adapter", material, [Group(parameters, SETTINGS["clip_adapter"])], loss_of)
    learned = now()
    with torch.no_grad():
        logits = scale * adapter(material.query, ratio) @ text.T
    trained = sum(parameter.numel() for parameter in parameters)
    return answered(
        logits[:, : material.classes], logits, trained=trained, stored=FLOAT * trained, started=started, learned=learned
    )
