"""2SFS (Farina et al., CVPR 2025, arXiv 2503.11609): LayerNorms first, then a classifier on features that rest.

A fixed share of the steps (0.6, the authors' alpha) tunes all LayerNorms against the class texts. The rest trains one
unit vector a class, from the tuned texts, at the model's own temperature. Classes without pictures keep their tuned
texts: the authors' selective inference.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend
from benchmarks.peers.in_backbone import embedded, tuned
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS
from benchmarks.peers.small_parts import layer_norms
from kusabi.training.texts import class_texts

SHARE = 0.6


def two_stage(material: Material, share: float = SHARE) -> Answers:
    """Tune, then classify; ``share`` of the steps goes to the first stage."""
    first = int(share * material.steps)
    model = tuned("two_stage", material, layer_norms, steps=first)
    scale, labels = material.backbone.scale, material.views.labels
    with torch.no_grad():
        features, text = (
            embedded(model.backbone, material.view_pixels),
            class_texts(model.backbone, material.all_prompts),
        )
    classifier = nn.Parameter(text[: material.classes].clone())

    def loss_of(rows: Tensor) -> Tensor:
        return F.cross_entropy(scale * features[rows] @ F.normalize(classifier, dim=-1).T, labels[rows])

    groups = [Group([classifier], SETTINGS["two_stage_classifier"])]
    descend("2SFS", material, groups, loss_of, steps=material.steps - first)
    learned = now()
    with torch.no_grad():
        whole = torch.cat([F.normalize(classifier, dim=-1), text[material.classes :]])
        logits = scale * embedded(model.backbone, material.query_pixels) @ whole.T
    trained = sum(p.numel() for p in model.trained.parameters) + classifier.numel()
    return answered(
        logits[:, : material.classes], logits, trained=trained, stored=FLOAT * trained, started=model.started,
        learned=learned,
    )  # fmt: skip
