"""One training from start to end: classifier, support, updates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kusabi.adapters.attach import attached
from kusabi.adapters.free_support import free_positions
from kusabi.adapters.moves import Moves
from kusabi.adapters.moving_support import most_changed
from kusabi.adapters.part import AdapterPart
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.spec import AdaptSpec, MovesSpec
from kusabi.training.birth import Birth, Sample, fresh_parts
from kusabi.training.cross_fit import CrossFit, cross_fit
from kusabi.training.fit import FitState, Record, fit
from kusabi.training.head import Head, fit_head, refit_like, sharpened
from kusabi.training.temperature import sureness
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features
from kusabi.training.warm_up import warm_support

Each = Callable[[FitState, Record], None]


@dataclass(frozen=True)
class Setting:
    """What every training of one run shares.

    ``text`` ``(C, D)`` are the frozen embeddings of the prompts, ``shots`` the labelled pictures a class as there are
    (``mean_shots``), ``taken`` the positions of weights that other adapters train, which a sparse delta leaves to them.
    """

    backbone: Backbone
    prompts: Sequence[Sequence[str]]
    text: Tensor
    plan: Plan
    spec: AdaptSpec
    precision: str
    shots: int
    taken: Mapping[str, Tensor] = field(default_factory=dict)


def mean_shots(pictures: int, classes: int) -> int:
    """Labelled pictures a class in the mean, rounded down, at least 1: as many as were asked for may not be there."""
    return max(1, pictures // classes)


@dataclass(frozen=True)
class Start:
    """What trainings on the same views share: how the classifier was fitted, and the cross-fitted ones of it."""

    head: Head | None
    against: CrossFit | None


@dataclass
class Learned:
    """Parts and classifier, not yet scaled; ``start`` is the classifier as training found it.

    ``head`` says how that came about, None for the pure text one. ``refitted``: it did not learn along, and is fitted
    again to whatever the values make of the pictures.
    """

    parts: tuple[AdapterPart, ...]
    prototypes: Prototypes
    head: Head | None
    start: Mapping[str, Tensor]
    steps: int
    refitted: bool

    @property
    def classifier(self) -> dict[str, Tensor]:
        """What is stored of it: nothing of the pure text one."""
        return dict(self.prototypes.named_parameters()) if self.head is not None else {}


def learn(
    setting: Setting, views: Views, *, start: Start | None = None, saved: Mapping[str, Tensor] | None = None,
    begin: Callable[[FitState], None] | None = None, each: Each | None = None,
) -> Learned:  # fmt: skip
    """Train on some views.

    Args:
        setting: What is shared.
        views: The support set, or a part of it.
        start: Of another training on these views; found when absent.
        saved: Checkpoint to go on from.
        begin: Told the state that training starts or goes on from.
        each: Told state and record after every update.

    Raises:
        AdapterError: When gradients are missing or not finite.
    """
    spec = setting.spec
    start = start or starting(setting, views)
    prototypes = prototypes_of(setting, start.head)
    state = FitState(
        _parts(setting, views, start, saved is not None),
        prototypes,
        start.head is not None and start.against is None,
        moves_of(spec.moves),
        steps=spec.training.steps,
        seed=spec.seed,
        averaged=spec.safety.average,
        closed=setting.taken,
    )
    if saved is not None:
        state.restore(saved)
    if begin:
        begin(state)
    for record in _updates(setting, views, state, start.against):
        if each:
            each(state, record)
    parts = tuple(part.finished() for part in state.parts)
    return Learned(parts, prototypes, start.head, state.start, state.step, start.against is not None)


def moves_of(spec: MovesSpec) -> Moves:
    """The engine's own settings."""
    fields = {name.removeprefix("move_"): value for name, value in spec.model_dump().items()}
    return Moves(**{"rho" if name == "random" else name: value for name, value in fields.items()})


@torch.no_grad()
def rescale(setting: Setting, views: Views, learned: Learned, alpha: float, head_alpha: float) -> None:
    """Keep a part of what was learned, in place.

    Args:
        setting: What the training shared.
        views: What it learned from.
        learned: Values go back towards nothing, the classifier to where it started or to what it is fitted to on the
            features of such values, then the classifier to the text.
        alpha: Of values, and of the classifier's way since the start; as in WiSE-FT (arXiv 2109.01903).
        head_alpha: Of the classifier's way from the text. At 0, where alpha is 0 too, all is exactly zero-shot.
    """
    if alpha != 1:
        for part in learned.parts:
            part.rescale(alpha)
    if learned.head is None:
        return
    if learned.refitted:
        _refit(setting, views, learned, learned.head)
    for name, parameter in learned.prototypes.named_parameters():
        start = learned.start[name]
        kept = parameter if alpha == 1 or learned.refitted else start + alpha * (parameter - start)
        parameter.copy_(head_alpha * kept)


def _refit(setting: Setting, views: Views, learned: Learned, head: Head) -> None:
    """By the choices made on frozen features: on these pictures the values leave no error to choose anything by.

    For the same reason it is no surer of them than so many pictures allow.
    """
    with attached(setting.backbone.module, *learned.parts):
        features = adapted_features(setting.backbone, views).double().cpu().numpy()
        text = class_texts(setting.backbone, setting.prompts) if "text" in setting.plan.first_layer else setting.text
    labels = views.labels.cpu().numpy()
    found = refit_like(head, features, labels, text.double().cpu().numpy())
    if setting.spec.safety.temper:
        logits = features @ found.weights.T + found.offsets
        found = sharpened(found, sureness(logits, labels, int(views.pictures.max()) + 1))
    place(learned.prototypes, found, text)


def starting(setting: Setting, views: Views) -> Start:
    """Fit the classifiers that training starts from."""
    asked = setting.spec
    if asked.adapter.head == "text":
        return Start(None, None)
    arrays = arrays_of(views)
    head = fit_head(*arrays, setting.text.double().cpu().numpy(), asked.adapter.blend)
    crossed = asked.safety.cross_fit > 1
    return Start(head, cross_fit(head, *arrays, setting.text, asked.safety.cross_fit) if crossed else None)


def place(prototypes: Prototypes, head: Head, text: Tensor | None = None) -> None:
    """Put a classifier at a fitted head; weights of about unit length are what bf16 stores well.

    Args:
        prototypes: The classifier.
        head: What it becomes.
        text: Adapted text embeddings ``(C, D)`` that it will meet; the stored ones when absent.
    """
    device = prototypes.text.device
    weights, offsets = (torch.from_numpy(part).float().to(device) for part in (head.weights, head.offsets))
    scale = max(float(weights.norm(dim=1).mean()), 1e-3)
    prototypes.place(weights / scale, offsets / scale, scale, text)


def prototypes_of(setting: Setting, head: Head | None) -> Prototypes:
    """The classifier of all pictures at the start of a training; the texts' own without a head."""
    backbone = setting.backbone
    prototypes = Prototypes(setting.text, backbone.scale, backbone.bias).to(backbone.device)
    if head is not None:
        place(prototypes, head)
    return prototypes


def arrays_of(views: Views) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frozen features, labels and pictures of all views."""
    return views.features.double().cpu().numpy(), views.labels.cpu().numpy(), views.pictures.cpu().numpy()


def _parts(setting: Setting, views: Views, start: Start, saved: bool) -> tuple[AdapterPart, ...]:
    """Fresh ones; a checkpoint brings their entries."""
    if setting.spec.adapter.support_rule == "change" and not saved:
        return (SparseDelta(_changed(setting, views, start)).to(setting.backbone.device),)
    classifier = start.against or prototypes_of(setting, start.head)
    sample = Sample(views, classifier, setting.prompts, setting.precision)
    birth = Birth(setting.backbone, setting.plan, setting.spec, sample, setting.taken)
    if setting.spec.adapter.support_rule == "warm_up" and not saved:
        return _around_a_warm_part(setting, views, birth, start)
    return fresh_parts(birth, empty=saved)


def _around_a_warm_part(setting: Setting, views: Views, birth: Birth, start: Start) -> tuple[AdapterPart, ...]:
    """RoSA: warm the low-rank part up alone, let the gradients around it choose the support, start both parts anew.

    The warm-up is the beginning of the training that the low-rank part alone would have; it is thrown away, its
    classifier too.
    """
    empty, low_rank = fresh_parts(birth, empty=True)
    state = _thrown_away(setting, low_rank, start)
    for _ in _updates(setting, views, state, start.against):
        state.stopped |= state.step >= setting.spec.low_rank.warm_up
    chosen = warm_support(birth, low_rank, start.against or state.prototypes, state.step)
    return SparseDelta(chosen).to(empty.indices.device), fresh_parts(birth, empty=True)[1]


def _thrown_away(setting: Setting, part: AdapterPart, start: Start) -> FitState:
    """State of a training that only tells where entries belong."""
    learns = start.head is not None and start.against is None
    spec = setting.spec
    return FitState((part,), prototypes_of(setting, start.head), learns, steps=spec.training.steps, seed=spec.seed)


def _changed(setting: Setting, views: Views, start: Start) -> dict[str, Tensor]:
    """LT-SFT: the entries that a dense training of the same length moves furthest; that training is thrown away."""
    nothing = torch.empty(0, dtype=torch.int64)
    everywhere = {
        t.tensor: free_positions(taken, torch.arange(t.size - len(taken))).to(torch.int32)
        for t in setting.plan.targets
        for taken in [setting.taken.get(t.tensor, nothing)]
    }
    dense = SparseDelta(everywhere).to(setting.backbone.device)
    state = _thrown_away(setting, dense, start)
    for _ in _updates(setting, views, state, start.against):
        pass
    return most_changed(dense, setting.plan.entries)


def _updates(setting: Setting, views: Views, state: FitState, against: CrossFit | None):
    return fit(
        state, setting.backbone, views, setting.prompts, setting.plan, setting.spec.training, setting.spec.safety,
        shots=setting.shots, seed=setting.spec.seed, precision=setting.precision,
        against=against,
    )  # fmt: skip
