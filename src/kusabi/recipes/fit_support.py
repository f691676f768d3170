"""From labelled pictures to a stored adapter: views, classifier, support, training."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter, rounded, save_adapter
from kusabi.adapters.prototypes import Prototypes
from kusabi.adapters.sparse_delta import SparseDelta
from kusabi.adapters.targets import Plan
from kusabi.backbones.backbone import Backbone
from kusabi.data.dataset import Dataset, Example
from kusabi.files import write_bytes
from kusabi.recipes.run_folder import ADAPTER, append_record, load_checkpoint, save_checkpoint, trim_metrics
from kusabi.recipes.watch import Watch, stage
from kusabi.spec import AdaptSpec
from kusabi.training.fit import FitState, choose_support, fit
from kusabi.training.head import Head, fit_head, refit
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features, encode_views

Prompts = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Fitted:
    """An adapter as stored (rounded), and the frozen features of its support set for the peers."""

    adapter: Adapter
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    seconds: float


def fit_support(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], prompts: Prompts, plan: Plan, spec: AdaptSpec,
    *, precision: str, watch: Watch, run: Path | None,
) -> Fitted:  # fmt: skip
    """Train one adapter; with a run folder, go on from its checkpoint and write ``adapter/`` in the end."""
    started = time.perf_counter()
    views = encode_views(
        backbone, dataset, support, plan.first_layer.get("vision"), views=spec.data.views, augment=spec.data.augment,
        seed=spec.seed, progress=stage(watch, "frozen layers"),
    )  # fmt: skip
    features, labels, pictures = (
        views.features.double().cpu().numpy(),
        views.labels.cpu().numpy(),
        views.pictures.cpu().numpy(),
    )
    with torch.no_grad():
        text = class_texts(backbone, prompts)
    prototypes = Prototypes(text, backbone.scale, backbone.bias).to(backbone.device)
    head = None
    if spec.adapter.head == "prototypes":
        head = fit_head(features, labels, pictures, text.double().cpu().numpy(), spec.adapter.blend)
        _place(prototypes, head)
    saved = load_checkpoint(run) if run else None
    if saved is None:
        chosen = choose_support(
            backbone, views, prototypes, prompts, plan, spec.adapter.support_rule, spec.seed, precision
        )
    else:
        chosen = _split(saved["indices"], plan)
    state = FitState(SparseDelta(chosen).to(backbone.device), prototypes, head is not None)
    if saved is not None:
        state.restore(saved)
    if run:
        trim_metrics(run, state.step)
    _train(state, backbone, views, prompts, plan, spec, precision, watch, run)
    if head is not None:
        _settle(state, backbone, views, prompts, plan, head)
    stored = dict(prototypes.named_parameters()) if head is not None else {}
    adapter = Adapter(state.delta, stored, card(backbone, dataset, support, prompts, plan, spec, head))
    if run:
        save_adapter(run / ADAPTER, adapter)
        write_bytes(run / ADAPTER / "README.md", _readme(adapter).encode())
    return Fitted(rounded(adapter), features, labels, pictures, time.perf_counter() - started)


def _train(
    state: FitState, backbone: Backbone, views: Views, prompts: Prompts, plan: Plan, spec: AdaptSpec, precision: str,
    watch: Watch, run: Path | None,
) -> None:  # fmt: skip
    steps = spec.training.steps
    watch("training", state.step, steps)
    records = fit(
        state, backbone, views, prompts, plan, spec.training, shots=spec.data.shots, seed=spec.seed,
        precision=precision,
    )  # fmt: skip
    for record in records:
        if run:
            append_record(run, record)
            if record.step % spec.training.checkpoint_every == 0:
                save_checkpoint(run, state.tensors())
        watch("training", record.step, steps, loss=record.loss, support=record.support_accuracy)


@torch.no_grad()
def _settle(state: FitState, backbone: Backbone, views: Views, prompts: Prompts, plan: Plan, head: Head) -> None:
    """Fit the classifier once more, by the choices already made, to what the adapted model now sees."""
    with attached(backbone.module, state.delta):
        features = adapted_features(backbone, views)
        text = class_texts(backbone, prompts) if "text" in plan.first_layer else state.prototypes.text
    arrays = (features.double().cpu().numpy(), views.labels.cpu().numpy(), text.double().cpu().numpy())
    settled = refit(*arrays, head.share, head.scale, head.strength)
    _place(state.prototypes, settled, text)


def _place(prototypes: Prototypes, head: Head, text: torch.Tensor | None = None) -> None:
    """Put the classifier at a fitted head; weights of about unit length are what bf16 stores well."""
    weights, offsets = (torch.from_numpy(part).float() for part in (head.weights, head.offsets))
    scale = max(float(weights.norm(dim=1).mean()), 1e-3)
    device = prototypes.text.device
    prototypes.place((weights / scale).to(device), (offsets / scale).to(device), scale, text)


def _split(indices: torch.Tensor, plan: Plan) -> dict[str, torch.Tensor]:
    parts = indices.split([target.entries for target in plan.targets])
    return {target.tensor: part for target, part in zip(plan.targets, parts, strict=True)}


def card(
    backbone: Backbone, dataset: Dataset, support: Sequence[Example], prompts: Prompts, plan: Plan, spec: AdaptSpec,
    head: Head | None,
) -> dict[str, Any]:  # fmt: skip
    """Everything about an adapter but its tensors, as plain data. No paths of this machine."""
    asked = spec.model_dump(mode="json")
    asked["backbone"]["backbone"] = backbone.source
    described = backbone.card()
    return {
        "kind": spec.adapter.kind,
        "classes": list(dataset.classes),
        "prompts": [list(of_class) for of_class in prompts],
        "backbone": {**described, "tensors": dict(backbone.tensor_digests)},
        "embedding_size": int(backbone.embed_texts([prompts[0][0]]).shape[1]),
        "head": {"kind": spec.adapter.head}
        | ({"share": head.share, "scale": head.scale, "strength": head.strength} if head else {}),
        "support_rule": spec.adapter.support_rule,
        "seed": spec.seed,
        "targets": [asdict(target) for target in plan.targets],
        "data": {"name": dataset.name, "digest": dataset.digest, "support_pictures": len(support)},
        "spec": asked,
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

{len(adapter.delta):,} trained entries on top of `{about["backbone"]["source"]}`, which stays as it is
(digest `{about["backbone"]["digest"]}`). Classes: {classes}.

```console
kusabi predict FOLDER_OF_THIS_README picture.jpg
```
"""
