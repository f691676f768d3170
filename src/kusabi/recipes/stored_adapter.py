"""An adapter from disk on its backbone: questions to a run that is long finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kusabi.adapters.attach import attached
from kusabi.adapters.card import PICTURE_DIGITS, check_backbone
from kusabi.adapters.checkpoint import Adapter, load_adapter
from kusabi.adapters.prototypes import Prototypes
from kusabi.backbones.backbone import Backbone
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.preprocessing import pixels
from kusabi.data.ahead import made_ahead
from kusabi.data.dataset import Dataset, Example
from kusabi.data.enumeration import enumerated
from kusabi.data.picture import open_picture
from kusabi.data.source import read_dataset
from kusabi.data.split import judged_of
from kusabi.errors import DataError
from kusabi.evaluation.stored import SPEC
from kusabi.recipes.evaluation_record import Scores, compared, group_names, grouped
from kusabi.recipes.judge import classifier, judge
from kusabi.recipes.new_classes import Prompts, joined, new_prompts, text_logits, weakened
from kusabi.recipes.question import use_device
from kusabi.recipes.run_folder import adapter_folder
from kusabi.recipes.watch import Watch, silent, stage
from kusabi.spec_file import read_spec
from kusabi.training.views import BLOCK

LEARNED = (
    "pictures that the adapter learned from are among those that judge it here, and make it look better than it is; "
    "its own evaluation leaves them out"
)


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter and the backbone it was made for; ``source`` and ``revision`` say where that was loaded from."""

    adapter: Adapter
    backbone: Backbone
    source: str
    revision: str | None


def open_adapter(
    run: Path, *, backbone: str | None = None, device: str = "cpu", dtype: str | None = None
) -> StoredAdapter:
    """Load the adapter of a run, or of an adapter folder, with its backbone; a wrong backbone is refused.

    Args:
        run: A run folder, or an adapter folder.
        backbone: Model folder or Hub id; where the run or the card says when absent.
        device: Where the model runs.
        dtype: Of the resident weights; as in training when absent.

    Raises:
        RunError, CheckpointError, BackboneError, AdapterError: By name.
    """
    folder = adapter_folder(run)
    adapter = load_adapter(folder)
    made = adapter.card["backbone"]
    resident = adapter.card.get("spec", {}).get("backbone", {}).get("dtype", "float32")  # the first cards had no spec
    spec_file = folder.parent / SPEC
    recorded = read_spec(spec_file).backbone.backbone if spec_file.exists() else made["source"]
    source = backbone or recorded
    # A folder has no revisions, and a mirror its own; whose weights these are is checked by their digests.
    revision = made["revision"] if source == made["source"] and not Path(source).expanduser().is_dir() else None
    model = load_backbone(
        source, revision=revision, dtype=dtype or resident, device=device,
        input_size=made["preprocessing"]["size"], fit=made["preprocessing"]["fit"],
    )  # fmt: skip
    check_backbone(adapter.card, model.digest, model.tensor_digests, model.preprocessing.to_json())
    return StoredAdapter(adapter, model, source, revision)


def evaluate_stored(
    run: Path, source: str, *, backbone: str | None = None, device: str = "cpu", threads: int | None = None,
    label_column: str = "label", group_column: str | None = None, skip_unreadable: bool = False, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Zero-shot and adapted on every labelled picture of a folder, or on its test split where it has one.

    As in training, copies judge once, and pictures under two labels not at all.
    With ``group_column`` (lot, patient, camera) intervals count groups.

    Raises:
        DataError: If the folder's classes are not the adapter's.
    """
    use_device(device, threads)
    stored = open_adapter(run, backbone=backbone, device=device)
    dataset = read_dataset(
        source, label_column=label_column, group_column=group_column, skip_unreadable=skip_unreadable, least_classes=1,
        progress=stage(watch, "pictures read"),
    )  # fmt: skip
    card = stored.adapter.card
    check_classes(dataset, card["classes"])
    query, left_out = judged_of(dataset)
    notes = [*dataset.notes, *left_out, *([LEARNED] if learned_from(dataset, query, stored.adapter) else [])]
    answers = judge(stored.backbone, dataset, query, card["prompts"], [stored.adapter], watch)
    scores = Scores(
        [example.file for example in query],
        group_names(dataset, query),
        np.array([card["classes"].index(dataset.classes[example.label]) for example in query]),
        {"zero_shot": answers.zero_shot, "adapted": answers.adapted[0]},
        answers.seconds,
    )
    return {
        "task": {"name": dataset.name, "classes": card["classes"], "notes": notes, "query_pictures": len(query),
                 **grouped(query), "data_digest": dataset.digest,
                 "learned_from": {key: told for key, told in card["data"].items() if key != "learned"}},
        **compared(scores, card["classes"], ("zero_shot", "adapted")),
        "backbone": stored.backbone.card(),
    }  # fmt: skip


def learned_from(dataset: Dataset, query: Sequence[Example], adapter: Adapter) -> bool:
    """Whether pictures that an adapter learned from are among those that would judge it.

    The first cards name no pictures: the whole folder that they were made from is all that is recognised.
    """
    about = adapter.card.get("data") or {}
    learned = set(about.get("learned", ()))
    if any(example.digest[:PICTURE_DIGITS] in learned for example in query):
        return True
    return not dataset.test and dataset.ungrouped_digest == about.get("digest")


def check_classes(dataset: Dataset, classes: Sequence[str]) -> None:
    """Refuse pictures of classes that an adapter does not know.

    Raises:
        DataError: Naming these classes.
    """
    foreign = [name for name in dataset.classes if name not in classes]
    if foreign:
        raise DataError(
            f"{dataset.place}: the adapter does not know {enumerated(foreign)}; it knows {enumerated(classes)}: give "
            "pictures of these, by these names"
        )


@torch.no_grad()
def predict(
    run: Path, images: Sequence[Path], *, also: Sequence[str] = (), backbone: str | None = None, device: str = "cpu",
    threads: int | None = None, watch: Watch = silent,
) -> list[dict[str, Any]]:  # fmt: skip
    """Class probabilities of pictures: ``{"file", "label", "scores": {class: p}}`` each, in the order given.

    Args:
        run: A run folder, or an adapter folder.
        images: Pictures to answer.
        also: Names of more classes, which nobody labelled: answered by their texts (``new_classes.py``).
        backbone: Model folder or Hub id; where the run or the card says when absent.
        device: Where the model runs.
        threads: Of torch.
        watch: Told how many pictures are done.

    Raises:
        DataError: Naming every picture that cannot be read, or a further class that is none; nothing is answered then.
    """
    use_device(device, threads)
    stored = open_adapter(run, backbone=backbone, device=device)
    more = new_prompts(stored.adapter, also) if also else ()
    classes = [*stored.adapter.card["classes"], *also]
    head = classifier(stored.backbone, stored.adapter)
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    for paths, opened in zip(blocks, made_ahead(_opened, blocks), strict=True):
        problems += [str(one) for one in opened if isinstance(one, DataError)]
        if problems:
            continue  # all of them are named, and none is answered
        shown = pixels([one for one in opened if not isinstance(one, DataError)], stored.backbone.preprocessing)
        for path, row in zip(paths, _probabilities(stored, head, shown.to(stored.backbone.device), more), strict=True):
            scores = {name: float(p) for name, p in zip(classes, row, strict=True)}
            found.append({"file": str(path), "label": classes[int(row.argmax())], "scores": scores})
        watch("pictures", len(found), len(images))
    if problems:
        raise DataError("; ".join(problems))
    return found


def _probabilities(stored: StoredAdapter, head: Prototypes, shown: Tensor, more: Prompts) -> NDArray[np.float64]:
    """Of one block of pictures, ``(m, C + N)``: of ``N`` new classes at the price of a second pass."""
    backbone, parts = stored.backbone, stored.adapter.parts
    with attached(backbone.module, *parts):
        own = head(backbone.embed_images(shown)).double().softmax(dim=1).cpu().numpy()
    if not more:
        return own
    prompts = [*stored.adapter.card["prompts"], *more]
    return joined(own, text_logits(backbone, weakened(stored.adapter), prompts, lambda: backbone.embed_images(shown)))


def _opened(path: Path) -> Image.Image | DataError:
    try:
        return open_picture(path)
    except DataError as error:
        return error
