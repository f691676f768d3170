"""Figures of an exported folder: zero-shot by name, and linear probes on frozen features."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining.tasks import Task


class Exported:
    """The exported folder, loaded as any user loads it."""

    def __init__(self, folder: Path):
        from transformers import AutoModel, AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(self.device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Tensor:
        """Embed texts, unit length."""
        parts = []
        for start in range(0, len(texts), 256):
            tokens = self.tokenizer(texts[start : start + 256], padding=True, truncation=True, return_tensors="pt")
            pooled = self.model.text_model(**tokens.to(self.device)).pooler_output
            parts.append(F.normalize(self.model.text_projection(pooled), dim=-1).cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def pictures(self, pictures: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
        """Embed pictures: unit-length embeddings, and class token beside mean patch (768 features)."""
        embeddings, features = [], []
        for start in range(0, len(pictures), 50):
            pixels = resized(pictures[start : start + 50], side).to(self.device)
            output = self.model.vision_model(pixel_values=pixels)
            embeddings.append(F.normalize(self.model.visual_projection(output.pooler_output), dim=-1).cpu())
            mean = output.last_hidden_state[:, 1:].mean(1)
            features.append(torch.cat([output.pooler_output, mean], 1).cpu())
        return torch.cat(embeddings), torch.cat(features)


def resized(pictures: np.ndarray, side: int) -> Tensor:
    """Resize uint8 pictures ``(n, h, w, 3)`` to a square and normalise them, as the stored processor does."""
    from pretraining.augment import normalise

    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return normalise(pixels.clamp(0, 1))


def naming(pictures: Tensor, texts: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent of naming by the nearest text."""
    truth = torch.from_numpy(labels)
    top = (pictures @ texts.T).topk(min(5, len(texts))).indices
    return {
        "top1": _percent((top[:, 0] == truth).float().mean().item()),
        "top5": _percent((top == truth[:, None]).any(1).float().mean().item()),
    }


def probe(support: Tensor, query: Tensor, tasks: tuple[Task, Task], shots: int, draws: int = 5) -> dict[str, float]:
    """Accuracy of logistic regression on few labels: mean and deviation over draws of the support set."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    accuracies = []
    for seed in range(draws):
        draw = np.random.default_rng(seed)
        rows = [draw.permutation(np.flatnonzero(tasks[0].labels == c))[:shots] for c in np.unique(tasks[0].labels)]
        chosen = np.concatenate(rows)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(support[chosen].numpy(), tasks[0].labels[chosen])
        accuracies.append(model.score(query.numpy(), tasks[1].labels))
    return {"mean": round(float(np.mean(accuracies)), 4), "deviation": round(float(np.std(accuracies)), 4)}


def temperature(pictures: Tensor, texts: Tensor, labels: np.ndarray) -> float:
    """The logarithm of the scale under which softmax over names is best calibrated (lowest cross entropy)."""
    truth = torch.from_numpy(labels)
    scales = torch.arange(1.5, 5.0, 0.05)
    losses = [F.cross_entropy(s.exp() * pictures @ texts.T, truth).item() for s in scales]
    return round(float(scales[int(np.argmin(losses))]), 3)


def _percent(share: float) -> float:
    return round(100 * share, 1)
