"""Peers without any training of their own: the texts, class means and a linear probe on frozen features."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.material import Material
from kusabi.evaluation import peers
from kusabi.recipes.new_classes import joined


def zero_shot(material: Material) -> Answers:
    """The texts alone; nothing is learned."""
    logits = text_logits(material)
    started = now()
    return answered(logits[:, : material.classes], logits, trained=0, stored=0, started=started, learned=started)


def class_mean(material: Material) -> Answers:
    """Cosine to the mean feature of every class; see ``kusabi.evaluation.peers``."""
    started = now()
    features, labels, pictures = arrays(material)
    own = peers.class_mean(features, labels, _array(material.query), material.classes, groups=pictures)
    return _counted(material, own, material.classes * features.shape[1] + 1, now() - started)


def linear_probe(material: Material) -> Answers:
    """Logistic regression on all views, its L2 cross-validated on the support set; see ``kusabi.evaluation.peers``."""
    started = now()
    features, labels, pictures = arrays(material)
    own = peers.linear_probe(features, labels, pictures, _array(material.query), material.classes)
    return _counted(material, own, material.classes * (features.shape[1] + 1), now() - started)


def _counted(material: Material, own: NDArray[np.float64], trained: int, seconds: float) -> Answers:
    return Answers(joined(own, _array(text_logits(material))), trained, FLOAT * trained, seconds)


def text_logits(material: Material) -> Tensor:
    """Zero-shot logits of the query over all classes, ``(m, C + N)``."""
    return material.backbone.scale * material.query @ material.text.T


def arrays(material: Material) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Frozen features, labels and picture numbers of all views."""
    views = material.views
    return _array(views.features), views.labels.cpu().numpy(), views.pictures.cpu().numpy()


def picture_features(material: Material) -> tuple[Tensor, Tensor]:
    """Mean feature of the views of every picture ``(n, D)``, not normalised, and the labels ``(n,)``."""
    views, count = material.views, material.pictures
    means = views.features.reshape(-1, count, views.features.shape[1]).mean(0)
    return means, views.labels[:count]


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().to(torch.float64).cpu().numpy()
