"""From labelled pictures to a stored adapter: views, classifier, support, training."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kusabi.adapters.card import PICTURE_DIGITS
from kusabi.adapters.checkpoint import Adapter, rounded, save_adapter
from kusabi.adapters.outline import outline
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.data.dataset import Dataset, Example
from kusabi.files import write_bytes
from kusabi.recipes.auto_placement import settled
from kusabi.recipes.beside import ALONE, Beside
from kusabi.recipes.run_folder import ADAPTER
from kusabi.recipes.training_log import append_record, load_checkpoint, save_checkpoint, trim_metrics
from kusabi.recipes.watch import Watch, once, stage
from kusabi.spec import AdaptSpec
from kusabi.training.fit import FitState, Record
from kusabi.training.learn import Learned, Setting, arrays_of, learn, mean_shots, rescale, starting
from kusabi.training.scale_choice import Scales, choose_scales
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, encode_views

Prompts = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Fitted:
    """An adapter as stored (rounded), the frozen features of its support set for the peers, and where it sits."""

    adapter: Adapter
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    seconds: float
    plan: Plan


def fit_support(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], prompts: Prompts, plan: Plan, spec: AdaptSpec,
    *, precision: str, watch: Watch, run: Path | None, beside: Beside = ALONE,
) -> Fitted:  # fmt: skip
    """Train one adapter; with a run folder, go on from its checkpoint and write ``adapter/`` in the end."""
    started = time.perf_counter()
    with torch.no_grad():
        text = class_texts(backbone, prompts)
    watch("class names", 1, 1)
    asked = Setting(
        backbone, prompts, text, plan, spec, precision, mean_shots(len(support), len(prompts)), beside.taken
    )
    setting = settled(asked, dataset, support, watch=watch, run=run)
    views = encode_views(
        backbone, dataset, support, setting.plan.first_layer.get("vision"), views=spec.data.views,
        augment=spec.data.augment, seed=spec.seed, precision=precision, progress=stage(watch, "frozen layers"),
        decoded=once(watch, "pictures decoded"),
    )  # fmt: skip
    learned = _learned(setting, views, watch, run)
    scales = choose_scales(setting, views, stage(watch, "scales"))
    rescale(setting, views, learned, scales.alpha, scales.head_alpha)
    watch("final classifier", 1, 1)
    about = card(backbone, dataset, support, prompts, setting.plan, spec, learned, scales, beside)
    if (placement := setting.spec.adapter.placement) is not None:
        about["placement"] = placement  # where ``auto`` came to sit, too
    adapter = Adapter(learned.parts, learned.classifier, about)
    if run:
        save_adapter(run / ADAPTER, adapter)
        write_bytes(run / ADAPTER / "README.md", _readme(adapter).encode())
    watch("adapter stored", 1, 1)
    return Fitted(rounded(adapter), *arrays_of(views), time.perf_counter() - started, setting.plan)


def _learned(setting: Setting, views: Views, watch: Watch, run: Path | None) -> Learned:
    training = setting.spec.training
    start = starting(setting, views)
    watch("classifier", 1, 1)

    def begin(state: FitState) -> None:
        if run:
            trim_metrics(run, state.step)
        watch("support chosen", 1, 1)
        watch("training", state.step, training.steps)

    def each(state: FitState, record: Record) -> None:
        if run:
            append_record(run, record)
            if record.step % training.checkpoint_every == 0:
                save_checkpoint(run, state.tensors())
        watch("training", record.step, training.steps, loss=record.loss, support=record.support_accuracy)

    saved = load_checkpoint(run) if run else None
    return learn(setting, views, start=start, saved=saved, begin=begin, each=each)


def card(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], prompts: Prompts, plan: Plan, spec: AdaptSpec,
    learned: Learned, scales: Scales, beside: Beside = ALONE,
) -> dict[str, Any]:  # fmt: skip
    """Everything about an adapter but its tensors, as plain data. No paths of this machine."""
    asked = spec.model_dump(mode="json")
    asked["backbone"]["backbone"] = backbone.source
    asked["adapter"]["beside"] = list(beside.digests)
    described, head = backbone.card(), learned.head
    return {
        "kind": spec.adapter.kind,
        "classes": list(dataset.classes),
        "prompts": [list(of_class) for of_class in prompts],
        "backbone": {**described, "tensors": dict(backbone.tensor_digests)},
        "embedding_size": int(backbone.embed_texts([prompts[0][0]]).shape[1]),
        "head": {"kind": spec.adapter.head}
        | ({"share": head.share, "scale": head.scale, "strength": head.strength} if head else {}),
        "support_rule": spec.adapter.support_rule,
        "steps": learned.steps,
        "scales": {"alpha": scales.alpha, "head_alpha": scales.head_alpha},
        "seed": spec.seed,
        "targets": outline(backbone.module, backbone.blocks, learned.parts).to_json()["targets"],
        "data": {
            "name": dataset.name,
            "digest": dataset.ungrouped_digest,
            "support_pictures": len(support),
            "learned": sorted(example.digest[:PICTURE_DIGITS] for example in support),
        },
        "spec": asked,
        **({"beside": list(beside.digests)} if beside.digests else {}),
        "versions": {name: version(name) for name in ("kusabi", "torch", "transformers")},
    }


def _readme(adapter: Adapter) -> str:
    about = adapter.card
    classes = ", ".join(about["classes"][:20]) + (" …" if len(about["classes"]) > 20 else "")
    return f"""---
library_name: kusabi
base_model: {about["backbone"]["source"]}
tags: [sparse-adapter, image-classification]
---

# Sparse adapter for {about["data"]["name"]}

{sum(map(len, adapter.parts)):,} trained entries on top of `{about["backbone"]["source"]}`, which stays as it is
(digest `{about["backbone"]["digest"]}`). Classes: {classes}.

```console
kusabi predict FOLDER_OF_THIS_README picture.jpg
```
"""
