"""TaskRes (Yu et al., CVPR 2023, arXiv 2211.10277): a free vector added to every class text, from zero."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend, single_threaded
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS

SHARE = 0.5  # the paper's scaling factor of the residual


@single_threaded()
def task_residual(material: Material, share: float = SHARE) -> Answers:
    """Train the residuals on the views; new classes have none."""
    started = now()
    views, text, scale = material.views, material.text[: material.classes], material.backbone.scale
    residual = nn.Parameter(torch.zeros_like(text))

    def moved() -> Tensor:
        return F.normalize(text + share * residual, dim=-1)

    def loss_of(rows: Tensor) -> Tensor:
        return F.cross_entropy(scale * views.features[rows] @ moved().T, views.labels[rows])

    descend("TaskRes", material, [Group([residual], SETTINGS["task_residual"])], loss_of)
    learned = now()
    with torch.no_grad():
        logits = scale * material.query @ torch.cat([moved(), material.text[material.classes :]]).T
    trained = residual.numel()
    return answered(
        logits[:, : material.classes], logits, trained=trained, stored=FLOAT * trained, started=started, learned=learned
    )
