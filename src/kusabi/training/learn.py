"""One training from start to end: classifier, support, updates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kusabi.adapters.moves import Moves
from kusabi.adapters.moving_support import most_changed
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.spec import AdaptSpec, MovesSpec
from kusabi.training.birth import Birth, Sample, fresh_parts
from kusabi.training.fit import FitState, Record, fit
from kusabi.training.head import Head, fit_head
from kusabi.training.views import Views

Each = Callable[[FitState, Record], None]


@dataclass(frozen=True)
class Setting:
    """What every training of one run shares; ``text`` ``(C, D)`` are the frozen embeddings of the prompts."""

    backbone: Backbone
    prompts: Sequence[Sequence[str]]
    text: Tensor
    plan: Plan
    spec: AdaptSpec
    precision: str
    shots: int


@dataclass
class Learned:
    """Parts and classifier, not yet scaled; ``start`` is the classifier as training found it.

    ``head`` says how that came about, None for the pure text one.
    """

    parts: tuple[AdapterPart, ...]
    prototypes: Prototypes
    head: Head | None
    start: Mapping[str, Tensor]
    steps: int


def learn(
    setting: Setting, views: Views, *, saved: Mapping[str, Tensor] | None = None,
    begin: Callable[[FitState], None] | None = None, each: Each | None = None,
) -> Learned:  # fmt: skip
    """Train on some views.

    Args:
        setting: What is shared.
        views: The support set, or a part of it.
        saved: Checkpoint to go on from.
        begin: Told the state that training starts or goes on from.
        each: Told state and record after every update.

    Raises:
        AdapterError: When gradients are missing or not finite.
    """
    spec = setting.spec
    prototypes, head = _classifier(setting, views)
    state = FitState(
        _parts(setting, views, prototypes, saved is not None),
        prototypes,
        head is not None,
        moves_of(spec.moves),
        steps=spec.training.steps,
        seed=spec.seed,
        averaged=spec.safety.average,
    )
    if saved is not None:
        state.restore(saved)
    if begin:
        begin(state)
    for record in _updates(setting, views, state):
        if each:
            each(state, record)
    parts = tuple(part.finished() for part in state.parts)
    return Learned(parts, prototypes, head, state.start, state.step)


def moves_of(spec: MovesSpec) -> Moves:
    """The engine's own settings."""
    fields = {name.removeprefix("move_"): value for name, value in spec.model_dump().items()}
    return Moves(**{"rho" if name == "random" else name: value for name, value in fields.items()})


@torch.no_grad()
def rescale(learned: Learned, alpha: float, head_alpha: float) -> None:
    """Keep a part of what was learned, in place.

    Args:
        learned: Values and classifier go back towards the start of the training, then the classifier to the text.
        alpha: Of values, and of the classifier's way since the start; as in WiSE-FT (arXiv 2109.01903).
        head_alpha: Of the classifier's way from the text. At 0, where alpha is 0 too, all is exactly zero-shot.
    """
    if alpha != 1:
        for part in learned.parts:
            part.rescale(alpha)
    for name, parameter in learned.prototypes.named_parameters() if learned.head is not None else ():
        start = learned.start[name]
        parameter.copy_(head_alpha * (parameter if alpha == 1 else start + alpha * (parameter - start)))


def place(prototypes: Prototypes, head: Head) -> None:
    """Put the classifier at a fitted head; weights of about unit length are what bf16 stores well."""
    weights, offsets = (torch.from_numpy(part).float() for part in (head.weights, head.offsets))
    scale = max(float(weights.norm(dim=1).mean()), 1e-3)
    device = prototypes.text.device
    prototypes.place((weights / scale).to(device), (offsets / scale).to(device), scale)


def _classifier(setting: Setting, views: Views) -> tuple[Prototypes, Head | None]:
    backbone, text = setting.backbone, setting.text
    prototypes = Prototypes(text, backbone.scale, backbone.bias).to(backbone.device)
    if setting.spec.adapter.head == "text":
        return prototypes, None
    features, labels, pictures = arrays_of(views)
    head = fit_head(features, labels, pictures, text.double().cpu().numpy(), setting.spec.adapter.blend)
    place(prototypes, head)
    return prototypes, head


def arrays_of(views: Views) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frozen features, labels and pictures of all views."""
    return views.features.double().cpu().numpy(), views.labels.cpu().numpy(), views.pictures.cpu().numpy()


def _parts(setting: Setting, views: Views, prototypes: Prototypes, saved: bool) -> tuple[AdapterPart, ...]:
    """Fresh ones; a checkpoint brings their entries."""
    if setting.spec.adapter.support_rule == "change" and not saved:
        return (SparseDelta(_changed(setting, views)).to(setting.backbone.device),)
    sample = Sample(views, prototypes, setting.prompts, setting.precision)
    birth = Birth(setting.backbone, setting.plan, setting.spec, sample)
    return fresh_parts(birth, empty=saved)


def _changed(setting: Setting, views: Views) -> dict[str, Tensor]:
    """LT-SFT: the entries that a dense training of the same length moves furthest; that training is thrown away."""
    prototypes, head = _classifier(setting, views)
    everywhere = {t.tensor: torch.arange(t.size, dtype=torch.int32) for t in setting.plan.targets}
    dense = SparseDelta(everywhere).to(setting.backbone.device)
    state = FitState((dense,), prototypes, head is not None, steps=setting.spec.training.steps, seed=setting.spec.seed)
    for _ in _updates(setting, views, state):
        pass
    return most_changed(dense, setting.plan.entries)


def _updates(setting: Setting, views: Views, state: FitState):
    return fit(
        state, setting.backbone, views, setting.prompts, setting.plan, setting.spec.training, setting.spec.safety,
        shots=setting.shots, seed=setting.spec.seed, precision=setting.precision,
    )  # fmt: skip
