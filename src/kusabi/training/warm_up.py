"""RoSA's support (Nikdan et al., arXiv 2401.04679, section 4): the largest gradients around a warmed-up low-rank part.

The authors' scripts take squared gradients of one batch of text. Few labelled pictures are few batches: here it is one
round of the views, in the batches that training would have come to next.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from kusabi.adapters.attach import attached
from kusabi.adapters.hybrid import rosa_supports
from kusabi.adapters.merged_training import dense_gradients
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.prototypes import Prototypes
from kusabi.training.birth import Birth, hybrid_shares
from kusabi.training.cross_fit import CrossFit
from kusabi.training.fit import batch_rows
from kusabi.training.forward import logits_of
from kusabi.training.precision import cast, loss_scale


def warm_support(
    birth: Birth, low_rank: AdapterPart, classifier: Prototypes | CrossFit, step: int
) -> dict[str, Tensor]:
    """Trained positions of every target.

    Args:
        birth: Of the hybrid; its sample says the pictures.
        low_rank: Warmed up.
        classifier: What answers.
        step: Updates that this took: the batches after them are looked at.

    Returns:
        Weight -> rising positions, int32 on the CPU.

    Raises:
        AdapterError: If the budget does not suit a hybrid, or gradients are missing or not finite.
    """
    sparse, _ = hybrid_shares(birth)
    entries = {target.tensor: target.entries for target in sparse.targets}
    return rosa_supports(_gradients(birth, low_rank, classifier, step), entries)


def _gradients(
    birth: Birth, low_rank: AdapterPart, classifier: Prototypes | CrossFit, step: int
) -> Iterator[Mapping[str, Tensor]]:
    """Dense gradients of the targets, batch after batch; one batch of them is alive at a time."""
    backbone, sample, training = birth.backbone, birth.sample, birth.spec.training
    assert sample is not None, "this rule looks at pictures"
    names, scale = tuple(target.tensor for target in birth.plan.targets), loss_scale(sample.precision)
    count = len(sample.views.labels)
    for number in range(step, step + math.ceil(count / training.batch_size)):
        rows = batch_rows(count, training.batch_size, birth.spec.seed, number)
        labels = sample.views.labels[torch.as_tensor(rows, device=sample.views.labels.device)]
        with attached(backbone.module, low_rank), dense_gradients(backbone.module, names) as collected:
            with cast(backbone, sample.precision):
                output = logits_of(backbone, sample.views, classifier, sample.prompts, birth.plan, rows)
            (scale * F.cross_entropy(output.logits.float(), labels)).backward()
        if isinstance(classifier, Prototypes):
            classifier.zero_grad()
        yield {name: dense / scale for name, dense in collected.items()}
