"""How many labels are enough: adapters from several numbers of shots and draws of the support set, and their law.

- All draws are judged on the same pictures: the test split, or else half of every class, held out before any draw.
- Draws are nested: of one draw, the pictures of 4 shots are among those of 8. Draw ``d`` is that of seed
  ``seed + d`` in ``adapt``; all other random choices stay those of ``seed``, so that draws differ in pictures alone.
- A class with fewer pictures than shots gives what it has; the law counts the labels that there were. Shots that no
  class can give are refused.
- The adapter sits at one place for the whole curve: that of the first draw of the most shots, where pictures choose it.
- The frozen layers run once: over the views of all pictures that any draw needs, and over the pictures that judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import Adapter, rounded
from kusabi.adapters.prototypes import Prototypes
from kusabi.backbones.digest import module_digest
from kusabi.data.dataset import Dataset
from kusabi.data.folds import group_of
from kusabi.data.judged_half import with_test_split
from kusabi.data.split import Split, few_shot_split
from kusabi.errors import DataError
from kusabi.evaluation.clusters import numbered, share_interval
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.learning_curve import learning_curve
from kusabi.evaluation.measured import Measured
from kusabi.evaluation.stored import CURVE, read_curve
from kusabi.recipes.adapt import peer_scores
from kusabi.recipes.auto_placement import settled
from kusabi.recipes.beside import refuse_beside
from kusabi.recipes.curve_folder import CurveAsked, check_curve, read_answers, write_answers
from kusabi.recipes.environment import environment
from kusabi.recipes.evaluation_record import grouped, judging
from kusabi.recipes.fit_support import card
from kusabi.recipes.judge import classifier
from kusabi.recipes.question import Question, given_now, pose_on, read_pictures, setting_of, use_device
from kusabi.recipes.run_folder import began, check_given, running, settings, write_json
from kusabi.recipes.watch import Watch, silent, stage
from kusabi.spec import AdaptSpec
from kusabi.training.learn import Setting, arrays_of, learn, mean_shots, rescale
from kusabi.training.scale_choice import choose_scales
from kusabi.training.texts import class_texts
from kusabi.training.views import Views, adapted_features, encode_views

SCHEMA = 1
METHODS = ("class_mean", "linear_probe", "adapted")


def curve(
    source: str,
    spec: AdaptSpec,
    out: Path,
    asked: CurveAsked | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    command: str = "",
    watch: Watch = silent,
) -> dict[str, Any]:
    """Measure a learning curve; stopped or killed, it goes on to the same bytes.

    Args:
        source: Folder of pictures, saved dataset, or Hub id.
        spec: What is asked of each adapter; its number of shots is replaced.
        out: The folder to write.
        asked: Shots, draws, and what is asked of the curve.
        resume: Go on with the curve that is there, if any; a finished one of the same pictures is left alone.
        device: Where the model runs.
        threads: CPU threads; torch's own choice when absent.
        command: What the user typed, for the record.
        watch: Told about progress.

    Returns:
        The content of ``curve.json``.

    Raises:
        KusabiError: Whatever the user can put right.
    """
    refuse_beside(spec, "curve")
    asked = asked or CurveAsked()
    spec = _with_shots(spec, asked.shots[-1])
    finished = check_curve(out, spec, asked, resume)
    if not finished:
        use_device(device, threads)
    dataset = with_test_split(read_pictures(source, spec, watch), spec.seed)
    if finished:
        check_given(out, given_now(dataset, spec))
        return read_curve(out)
    supports = _supports(dataset, asked, spec.seed)
    question = pose_on(dataset, spec, device)
    surroundings = {"command": command, **question.given(), "curve": asked.to_json()}
    with running(out, spec, "curve", environment() | surroundings, resume):
        before = module_digest(question.backbone.module)
        placed = _settled(question, spec, supports[asked.shots[-1], 0], watch, out)
        question, spec = replace(question, plan=placed.plan), placed.spec
        shared = _shared(question, spec, supports, watch)
        lines = {(line["shots"], line["draw"]): line for line in read_answers(out)}
        for done, at in enumerate(supports):
            watch("adapters", done, len(supports))
            if at not in lines:
                lines[at] = _line(question, spec, shared, at, supports[at])
                write_answers(out, list(lines.values()))
        watch("adapters", len(supports), len(supports))
        assert module_digest(question.backbone.module) == before, "training changed the frozen backbone"
        found = _record(question, spec, asked, shared, [lines[at] for at in sorted(lines)], device, began(out))
        write_json(out / CURVE, found)
        return found


def _settled(question: Question, spec: AdaptSpec, files: Sequence[str], watch: Watch, out: Path) -> Setting:
    """One placement for the whole curve, where pictures choose it: by the first draw of the most shots."""
    learned_from = set(files)
    support = [example for example in question.dataset.train if example.file in learned_from]
    return settled(setting_of(question, spec, len(support)), question.dataset, support, watch=watch, run=out)


def _with_shots(spec: AdaptSpec, shots: int) -> AdaptSpec:
    return spec.model_copy(update={"data": spec.data.model_copy(update={"shots": shots})})


def _supports(dataset: Dataset, asked: CurveAsked, seed: int) -> dict[tuple[int, int], tuple[str, ...]]:
    """(shots, draw) -> files learned from.

    Raises:
        DataError: If no class has as many pictures as some number of shots.
    """
    everything = few_shot_split(dataset, len(dataset.train) or 1, seed).support
    richest = int(np.bincount([example.label for example in everything]).max())
    beyond = [shots for shots in asked.shots if shots > richest]
    if beyond:
        raise DataError(
            f"{dataset.place}: {', '.join(map(str, beyond))} shots: no class has more than {richest} pictures to "
            "learn from; ask for fewer shots, or add pictures"
        )
    found = {}
    for shots in asked.shots:
        for draw in range(asked.draws):
            found[shots, draw] = tuple(one.file for one in few_shot_split(dataset, shots, seed + draw).support)
    return found


@dataclass(frozen=True)
class _Shared:
    """What all trainings share: ``pool`` are the views of all ``files``, ``query`` the pictures that judge."""

    files: Sequence[str]
    pool: Views
    query: Views
    text: torch.Tensor

    @property
    def truth(self) -> NDArray[np.int64]:
        return self.query.labels.cpu().numpy()


@torch.no_grad()
def _shared(
    question: Question, spec: AdaptSpec, supports: Mapping[tuple[int, int], Sequence[str]], watch: Watch
) -> _Shared:
    needed = {file for files in supports.values() for file in files}
    pool = [example for example in question.dataset.train if example.file in needed]
    layer, data = question.plan.first_layer.get("vision"), spec.data
    assert isinstance(question.split, Split), "a dataset with a test split is never cross-validated"

    def encoded(pictures: Any, views: int, name: str, precision: str) -> Views:
        return encode_views(
            question.backbone, question.dataset, pictures, layer, views=views, augment=data.augment, seed=spec.seed,
            precision=precision, progress=stage(watch, name),
        )  # fmt: skip

    views = encoded(pool, data.views, "frozen layers", question.precision)
    query = encoded(question.split.query, 1, "query pictures", "float32")
    text = class_texts(question.backbone, question.prompts)
    return _Shared([example.file for example in pool], views, query, text)


def _line(
    question: Question, spec: AdaptSpec, shared: _Shared, at: tuple[int, int], support: Sequence[str]
) -> dict[str, Any]:
    """Train on one draw and answer; what is judged is the adapter as stored."""
    (shots, draw), learned_from = at, set(support)
    spec = _with_shots(spec, shots)
    chosen = torch.tensor([file in learned_from for file in shared.files], device=shared.pool.labels.device)
    views = shared.pool.only(chosen.repeat(spec.data.views))
    backbone = question.backbone
    held = mean_shots(len(support), len(question.prompts))
    setting = Setting(backbone, question.prompts, shared.text, question.plan, spec, question.precision, held)
    learned = learn(setting, views)
    scales = choose_scales(setting, views)
    rescale(setting, views, learned, scales.alpha, scales.head_alpha)
    pictures = [example for example in question.dataset.train if example.file in learned_from]
    about = card(backbone, question.dataset, pictures, question.prompts, question.plan, spec, learned, scales)
    adapter = rounded(Adapter(learned.parts, learned.classifier, about))
    query = shared.query.features.double().cpu().numpy()
    scores = peer_scores(*arrays_of(views), query, len(question.dataset.classes))
    scores["adapted"] = _adapted(question, adapter, shared.query)
    return {
        "shots": shots,
        "draw": draw,
        "seed": spec.seed + draw,
        "labels": len(support) / len(question.dataset.classes),
        "entries": sum(map(len, adapter.parts)),
        "scales": [scales.alpha, scales.head_alpha],
        "support": sorted(support),
        "answers": {method: scores[method].argmax(axis=1).tolist() for method in METHODS},
    }


@torch.no_grad()
def _adapted(question: Question, adapter: Adapter, query: Views) -> NDArray[np.float64]:
    head = classifier(question.backbone, adapter)
    with attached(question.backbone.module, *adapter.parts):
        return head(adapted_features(question.backbone, query)).double().cpu().numpy()


@torch.no_grad()
def _zero_shot(question: Question, shared: _Shared) -> NDArray[np.int64]:
    head = Prototypes(shared.text, question.backbone.scale, question.backbone.bias).to(question.backbone.device)
    return head(shared.query.features).argmax(dim=1).cpu().numpy()


def _record(
    question: Question, spec: AdaptSpec, asked: CurveAsked, shared: _Shared, lines: Sequence[Mapping[str, Any]],
    device: str, first: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    dataset, truth = question.dataset, shared.truth
    zero_shot = _zero_shot(question, shared) == truth
    judges = judging(question.split)
    groups = numbered([group_of(example) for example in judges])
    labels = [float(line["labels"]) for line in lines[:: asked.draws]]
    right = {
        method: np.array([line["answers"][method] for line in lines]).reshape(-1, asked.draws, len(truth)) == truth
        for method in METHODS
    }
    curves = {
        method: learning_curve(
            Measured(right[method], truth, dataset.classes, asked.shots, labels, groups),
            more=asked.more,
            worth=asked.worth,
        )
        for method in METHODS
    }
    # The split's last note is of the most shots of one draw alone.
    learned = f"{len(shared.files)} pictures are learned from, in one draw or another; {len(truth)} judge all of them"
    against = {"zero_shot": np.broadcast_to(zero_shot, right["adapted"].shape)} | right
    return {
        "schema": SCHEMA,
        "kind": "curve",
        "task": {
            "name": dataset.name, "classes": list(dataset.classes), "seed": spec.seed,
            "support_pictures": len(shared.files), "query_pictures": len(truth), "data_digest": dataset.digest,
            **grouped(judges), "notes": [*dataset.notes, *question.split.notes[:-1], learned],
        },
        "asked": asked.to_json(),
        "labels": labels,
        "zero_shot": {
            "accuracy": float(zero_shot.mean()), "interval": share_interval(int(zero_shot.sum()), zero_shot, groups),
        },
        "methods": curves,
        "against": [
            {"shots": shots}
            | {
                way: compare(right["adapted"][step], against[way][step], groups=groups)
                for way in ("zero_shot", *METHODS[:-1])
            }
            for step, shots in enumerate(asked.shots)
        ],
        "adapter": {"kind": spec.adapter.kind, "entries": lines[-1]["entries"]},
        "training": settings(spec, device, question.precision, len(lines[-1]["support"])),
        "backbone": question.backbone.card(),
        "environment": {key: value for key, value in first.items() if key in environment()},
        "command": first["command"],
    }  # fmt: skip
