"""Tip-Adapter and Tip-Adapter-F (Zhang et al., ECCV 2022, arXiv 2111.03930): a cache of labelled features.

``logits = scale * cosine to texts + alpha * exp(-beta (1 - cosine to keys)) @ values``. The authors search alpha and
beta on validation data (some reports: on the test set). Here the support set alone chooses: lowest log-loss over
pictures, each answered without its own key; with a single picture a class the paper's values stand.
"""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend, single_threaded
from benchmarks.peers.frozen_features import picture_features, text_logits
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS

ALPHA, BETA = 1.0, 5.5  # section 4.1
ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
BETAS = (1.0, 2.0, 4.0, 5.5, 8.0, 16.0, 32.0)


@single_threaded()
def tip_adapter(material: Material, alpha: float | None = None, beta: float | None = None) -> Answers:
    """Without training. ``alpha`` and ``beta`` are chosen on the support set unless both are given."""
    started = now()
    keys, labels = cache(material)
    alpha, beta = _settled(material, keys, labels, alpha, beta)
    return _answers(material, keys, labels, alpha, beta, 0, started, now())


@single_threaded()
def tip_adapter_f(
    material: Material, alpha: float | None = None, beta: float | None = None, steps: int | None = None
) -> Answers:
    """The keys learn, from the cache; alpha and beta as without training."""
    started = now()
    start, labels = cache(material)
    alpha, beta = _settled(material, start, labels, alpha, beta)
    keys = nn.Parameter(start.clone())
    views, text = material.views, material.text[: material.classes]

    def loss_of(rows: Tensor) -> Tensor:
        shown = views.features[rows]
        logits = material.backbone.scale * shown @ text.T + cache_logits(shown, keys, labels, alpha, beta, len(text))
        return F.cross_entropy(logits, views.labels[rows])

    descend("Tip-Adapter-F", material, [Group([keys], SETTINGS["tip_adapter_f"])], loss_of, steps=steps)
    return _answers(material, keys.detach(), labels, alpha, beta, keys.numel(), started, now())


def _answers(
    material: Material, keys: Tensor, labels: Tensor, alpha: float, beta: float, trained: int, started: float,
    learned: float,
) -> Answers:  # fmt: skip
    texts = text_logits(material)
    cached = cache_logits(material.query, keys, labels, alpha, beta, material.classes)
    return answered(
        texts[:, : material.classes] + cached, texts, trained=trained, stored=FLOAT * (keys.numel() + len(labels)),
        started=started, learned=learned, chosen={"alpha": alpha, "beta": beta},
    )  # fmt: skip


def cache(material: Material) -> tuple[Tensor, Tensor]:
    """Keys, unit rows ``(n, D)``: every picture's mean over its views; and labels ``(n,)``."""
    means, labels = picture_features(material)
    return F.normalize(means, dim=-1), labels


def cache_logits(features: Tensor, keys: Tensor, labels: Tensor, alpha: float, beta: float, classes: int) -> Tensor:
    """What the cache adds to the logits, ``(m, C)``."""
    affinity = torch.exp(-beta * (1 - features @ keys.T))
    return alpha * affinity @ F.one_hot(labels, classes).to(affinity.dtype)


def _settled(
    material: Material, keys: Tensor, labels: Tensor, alpha: float | None, beta: float | None
) -> tuple[float, float]:
    if alpha is not None and beta is not None:
        return alpha, beta
    if int(torch.bincount(labels, minlength=material.classes).min()) < 2:
        return ALPHA, BETA
    shown = material.views.features[: len(labels)]  # the pictures themselves
    texts = material.backbone.scale * shown @ material.text[: material.classes].T
    distance = 1 - shown @ keys.T
    distance.fill_diagonal_(torch.inf)  # nobody is answered by his own key
    truth = F.one_hot(labels, material.classes).to(distance.dtype)

    def loss(choice: tuple[float, float]) -> float:
        added = choice[0] * torch.exp(-choice[1] * distance) @ truth
        return float(F.cross_entropy((texts + added).double(), labels))

    return min(product(ALPHAS, BETAS), key=loss)
