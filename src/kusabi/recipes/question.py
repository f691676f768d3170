"""What every recipe begins with: the pictures, the model, the split, the targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kusabi.adapters.targets import Plan, plan
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.weights import digest_now
from kusabi.data.dataset import Dataset
from kusabi.data.prompts import class_prompts
from kusabi.data.source import read_dataset
from kusabi.data.split import Folds, Split, few_shot_split
from kusabi.errors import SpecError
from kusabi.recipes.beside import ALONE, Beside, adapters_beside, digests_beside
from kusabi.recipes.fit_support import Prompts
from kusabi.recipes.watch import Watch, silent, stage
from kusabi.spec import AdaptSpec
from kusabi.training.birth import Birth, fresh_parts
from kusabi.training.learn import Setting, mean_shots, moves_of
from kusabi.training.precision import resolve
from kusabi.training.texts import class_texts


@dataclass(frozen=True)
class Question:
    """Everything that is known before anything is learned."""

    dataset: Dataset
    split: Split | Folds
    prompts: Prompts
    backbone: Backbone
    plan: Plan
    precision: str
    beside: Beside = ALONE

    def given(self) -> dict[str, Any]:
        """What the answer depends on beside the spec, by digest: a run that is gone on with must find the same."""
        return _given(self.dataset, self.backbone.digest, self.beside.digests)


def given_now(dataset: Dataset, spec: AdaptSpec) -> dict[str, Any]:
    """As ``Question.given``, without loading the model: for a finished run, which needs to know no more.

    Raises:
        BackboneError, AdapterError: If the weights, or the adapters beside, cannot be read.
    """
    return _given(dataset, digest_now(spec.backbone.backbone), digests_beside(spec.adapter.beside))


def _given(dataset: Dataset, backbone: str | None, beside: Sequence[str]) -> dict[str, Any]:
    known = {"data_digest": dataset.digest} | ({"backbone_digest": backbone} if backbone else {})
    return known | ({"beside": list(beside)} if beside else {})


def pose(source: str, spec: AdaptSpec, *, device: str, threads: int | None, watch: Watch) -> Question:
    """Read the pictures, split them, load the model and choose the targets; nothing is changed.

    Raises:
        DataError, BackboneError, AdapterError, SpecError: As their rooms say; the pictures are checked first.
    """
    use_device(device, threads)
    return pose_on(read_pictures(source, spec, watch), spec, device, watch=watch)


def read_pictures(source: str, spec: AdaptSpec, watch: Watch) -> Dataset:
    """The pictures that a spec asks for."""
    data = spec.data
    return read_dataset(
        source, label_column=data.label_column, group_column=data.group_column,
        skip_unreadable=data.skip_unreadable, progress=stage(watch, "pictures read"),
    )  # fmt: skip


def pose_on(
    dataset: Dataset, spec: AdaptSpec, device: str, opened: Backbone | None = None, *, watch: Watch = silent
) -> Question:
    """As ``pose``, on pictures that are read already and, where one is given, with a backbone that is open already."""
    data = spec.data
    prompts = class_prompts(dataset.classes, data.templates, data.names)
    split = few_shot_split(dataset, data.shots, spec.seed)
    backbone = open_backbone(spec, device) if opened is None else opened
    watch("model loaded", 1, 1)
    weights = plan(backbone.module, backbone.blocks, spec.adapter)
    moves_of(spec.moves)
    beside = adapters_beside(spec.adapter.beside, backbone)
    # What cannot be made is refused before anything is written.
    fresh_parts(Birth(backbone, weights, spec, None, beside.taken))
    return Question(
        dataset,
        split,
        prompts,
        backbone,
        weights,
        # Beside half-precision neighbours the fp32 copies of trained weights need autocast to fit.
        resolve(spec.training.precision, device) if spec.backbone.dtype == "float32" else spec.backbone.dtype,
        beside,
    )


@torch.no_grad()
def setting_of(question: Question, spec: AdaptSpec, pictures: int) -> Setting:
    """What a training on so many labelled pictures asks, by the plan of the question."""
    backbone = question.backbone
    text = class_texts(backbone, question.prompts)
    shots = mean_shots(pictures, len(question.prompts))
    return Setting(backbone, question.prompts, text, question.plan, spec, question.precision, shots)


def open_backbone(spec: AdaptSpec, device: str) -> Backbone:
    """The backbone that a spec asks for."""
    asked = spec.backbone
    return load_backbone(
        asked.backbone, revision=asked.revision, dtype=asked.dtype, device=device, input_size=asked.input_size,
        fit=asked.fit,
    )  # fmt: skip


def use_device(device: str, threads: int | None) -> None:
    """Pin the threads; refuse a device that is not there.

    Raises:
        SpecError: When the device is unknown or absent.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"--device {device}: not available here ({reason}); use cpu") from None
