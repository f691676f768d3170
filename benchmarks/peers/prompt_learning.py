"""CoOp (Zhou et al., IJCV 2022, arXiv 2109.01134) and KgCoOp (Yao et al., CVPR 2023, arXiv 2303.13283).

Context vectors in front of the class words are learned through the frozen text tower. Both start from "a photo of a"
(four vectors, shared by all classes, class words last), the setting that CoOp's authors use where training is short and
the only one of KgCoOp's. KgCoOp adds ``8 * (1 - cosine)`` to the class texts that zero-shot uses, as its code does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.answers import FLOAT, Answers, answered, now
from benchmarks.peers.descent import Group, descend
from benchmarks.peers.material import Material
from benchmarks.peers.settings import SETTINGS
from kusabi.backbones.backbone import Backbone
from kusabi.errors import BackboneError

CONTEXT = "a photo of a"
PULL = 8.0  # lambda of KgCoOp


def coop(material: Material, steps: int | None = None) -> Answers:
    """Learn the context by cross-entropy alone."""
    return _learned("coop", material, 0.0, steps)


def kgcoop(material: Material, steps: int | None = None) -> Answers:
    """Learn the context, near the zero-shot texts."""
    return _learned("kgcoop", material, PULL, steps)


def _learned(name: str, material: Material, pull: float, steps: int | None) -> Answers:
    started = now()
    views, scale, anchors = material.views, material.backbone.scale, material.text[: material.classes]
    context = nn.Parameter(starting_context(material.backbone))

    def loss_of(rows: Tensor) -> Tensor:
        text = texts(material.backbone, context, material.words)
        fit = F.cross_entropy(scale * views.features[rows] @ text.T, views.labels[rows])
        return fit + pull * drift(text, anchors) if pull else fit

    descend(name, material, [Group([context], SETTINGS[name])], loss_of, steps=steps)
    learned = now()
    with torch.no_grad():
        text = texts(material.backbone, context, (*material.words, *material.new_words))
        logits = scale * material.query @ text.T
    return answered(
        logits[:, : material.classes], logits, trained=context.numel(), stored=FLOAT * context.numel(), started=started,
        learned=learned,
    )  # fmt: skip


def drift(text: Tensor, anchors: Tensor) -> Tensor:
    """KgCoOp's knowledge-guided term: mean of one minus the cosine, rows being unit vectors."""
    return 1 - (text * anchors).sum(1).mean()


def starting_context(backbone: Backbone) -> Tensor:
    """Embeddings of the words "a photo of a", ``(M, W)``, float32."""
    return _table(backbone).weight.detach()[_tokens(backbone)].float().clone()


def texts(backbone: Backbone, context: Tensor, words: Sequence[str]) -> Tensor:
    """Unit rows ``(C, D)`` of context and class words; differentiable in the context.

    Args:
        backbone: The frozen model.
        context: Vectors in place of the context's words, ``(M, W)``.
        words: What the classes are called.

    Raises:
        BackboneError: When the tokenizer does not keep the context's words apart from what surrounds them.
    """
    sentences = [f"{CONTEXT} {of_class}" for of_class in words]
    with _replaced(backbone, context):
        return backbone.embed_texts(sentences)


def _tokens(backbone: Backbone) -> Tensor:
    """The context's words as the tokenizer numbers them, ``(M,)``."""
    numbers = backbone.tokenizer(CONTEXT, add_special_tokens=False)["input_ids"]
    return torch.tensor(numbers, device=backbone.device)


def _table(backbone: Backbone) -> nn.Embedding:
    model: Any = backbone.module.get_submodule("text_model")
    return model.get_input_embeddings()


@contextmanager
def _replaced(backbone: Backbone, context: Tensor) -> Iterator[None]:
    """The embeddings of the context's words are the context meanwhile, wherever a tokenizer pads or begins."""
    words = _tokens(backbone)
    places = torch.arange(len(words), device=words.device)

    def replace(_table: nn.Module, args: tuple[Any, ...], found: Tensor) -> Tensor:
        room = args[0].shape[1] - len(words) + 1
        at = torch.arange(max(room, 0), device=words.device)[:, None] + places
        matches = (args[0][:, at] == words).all(-1)
        if not bool(matches.any(1).all()):
            raise BackboneError(
                f"prompt learning starts from '{CONTEXT}', and this tokenizer joins it with the class words; leave "
                "CoOp and KgCoOp out for this model"
            )
        first = matches.int().argmax(1, keepdim=True)
        mixed = found.clone()
        mixed[torch.arange(len(found), device=found.device)[:, None], first + places] = context.to(found.dtype)
        return mixed

    hook = _table(backbone).register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
