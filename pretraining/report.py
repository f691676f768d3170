"""Every figure of the card, measured on the exported folder and written to one JSON file beside it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from pretraining import tasks
from pretraining.gather import Sources
from pretraining.measure import Exported, naming, probe, temperature
from pretraining.sources import VALIDATION, colour_captions, read_icons
from pretraining.teacher import embed

NAMING_SETS = ("openmoji", "hugeicons", "fluent-emoji", "fluent-emoji-flat", "fluent-color", "fluent")
SIDES = (84, 112)  # zero-shot is reported at both


def measure(folder: Path, sources: Sources, cache: Path) -> dict:
    """Measure the exported folder on every task of the card."""
    exported = Exported(folder)
    return {
        "naming": _naming(exported, sources, cache),
        "japanese": _japanese(exported, sources, cache),
        "zero_shot": _zero_shot(exported, cache),
        "probe": _probes(exported, cache),
        "text_tower": _text_tower(exported, sources, cache),
    }


def _naming(exported: Exported, sources: Sources, cache: Path) -> dict:
    shared = colour_captions(sources.icons)
    results: dict[str, dict] = {}
    for set_name in NAMING_SETS:
        for pool, allowed in (("shared names", shared), ("all names", None)):
            task = tasks.naming_task(sources.folders["icons"], set_name, allowed)
            texts = {"teacher": embed(task.names, cache), "own": exported.texts(task.names)}
            entry: dict = {"pictures": len(task.labels), "names": len(task.names)}
            for side in SIDES:
                pictures, _ = exported.pictures(task.pictures, side)
                entry |= {f"{who} text, {side} px": naming(pictures, t, task.labels) for who, t in texts.items()}
            results.setdefault(set_name, {})[pool] = entry
    return results


def _japanese(exported: Exported, sources: Sources, cache: Path) -> dict:
    task, english = tasks.japanese_task(sources.folders)
    pictures, _ = exported.pictures(task.pictures, 112)
    return {
        "pictures": len(task.labels),
        "names": len(task.names),
        "own text, Japanese names": naming(pictures, exported.texts(task.names), task.labels),
        "own text, English names": naming(pictures, exported.texts(english), task.labels),
        "teacher text, English names": naming(pictures, embed(english, cache), task.labels),
    }


def _zero_shot(exported: Exported, cache: Path) -> dict:
    results = {}
    vqa, (_, clothes) = tasks.easy_vqa(), tasks.fashion(cache)
    few = np.random.default_rng(0).permutation(len(clothes.labels))[:2000]
    clothes = tasks.Task(clothes.pictures[few], clothes.labels[few], clothes.names)
    for name, task in (("easy-VQA colour and shape", vqa), ("Fashion-MNIST", clothes)):
        pictures, _ = exported.pictures(task.pictures, 112)
        prompts = task.names if task is vqa else [f"a photo of a {n}" for n in task.names]
        texts = {"own text": exported.texts(prompts), "teacher text": embed(prompts, cache)}
        entry = {who: naming(pictures, t, task.labels) for who, t in texts.items()}
        if task is vqa:
            entry |= _parts(pictures, texts["own text"], task)
        results[name] = {"pictures": len(task.labels), "classes": len(task.names)} | entry
    return results


def _parts(pictures: torch.Tensor, texts: torch.Tensor, task: tasks.Task) -> dict:
    words = [name.split() for name in task.names]
    best = (pictures @ texts.T).argmax(1).tolist()
    pairs = [(words[b], words[label]) for b, label in zip(best, task.labels, strict=True)]
    return {
        "colour right": round(100 * float(np.mean([b[1] == t[1] for b, t in pairs])), 1),
        "shape right": round(100 * float(np.mean([b[2] == t[2] for b, t in pairs])), 1),
    }


def _probes(exported: Exported, cache: Path) -> dict:
    results: dict[str, dict] = {}
    draw = np.random.default_rng(0)
    train, test = tasks.fashion(cache)
    rows = np.concatenate([draw.permutation(np.flatnonzero(train.labels == c))[:100] for c in range(10)])
    train = tasks.Task(train.pictures[rows], train.labels[rows], train.names)
    rows = draw.permutation(len(test.labels))[:2000]
    test = tasks.Task(test.pictures[rows], test.labels[rows], test.names)
    for name, pair, side in (("textile, 224 px", tasks.textile(), 224), ("Fashion-MNIST, 84 px", (train, test), 84)):
        support, query = (exported.pictures(task.pictures, side) for task in pair)
        for index, kind in ((0, "embedding"), (1, "class token and mean patch")):
            for shots in (4, 16):
                entry = probe(support[index], query[index], pair, shots)
                results.setdefault(name, {})[f"{kind}, {shots} shots"] = entry
    return results


def _text_tower(exported: Exported, sources: Sources, cache: Path) -> dict:
    """How near the student's embeddings are to the teacher's, on names it saw and on held-out names it never saw."""
    seen = sorted(sources.shared)[::10]
    trained = {icon.caption for icon in sources.icons}
    other = read_icons(sources.folders["icons"], lambda name, _: name == "hugeicons")
    unseen = sorted({icon.caption for icon in other} - trained)
    return {
        name: {
            "texts": len(texts),
            "cosine": round(float((exported.texts(texts) * embed(texts, cache)).sum(1).mean()), 3),
        }
        for name, texts in (("names seen in training", seen), ("names never seen", unseen))
    }


def calibrated_scale(folder: Path, sources: Sources) -> float:
    """The logit scale for the folder, from validation vendors, ten random names at a time."""
    exported, scales = Exported(folder), []
    for set_name in VALIDATION:
        task = tasks.naming_task(sources.folders["icons"], set_name, colour_captions(sources.icons))
        pictures, _ = exported.pictures(task.pictures, 112)
        texts = exported.texts(task.names)
        for seed in range(20):
            names = np.random.default_rng(seed).permutation(len(task.names))[:10]
            rows = np.flatnonzero(np.isin(task.labels, names))
            labels = np.array([int(np.flatnonzero(names == task.labels[r])[0]) for r in rows])
            scales.append(temperature(pictures[rows], texts[names], labels))
    return float(np.median(scales))


def training_data(sources: Sources) -> dict:
    """Pictures learned from, by licence, with the author of every set."""
    listed = json.loads((sources.folders["icons"] / "collections.json").read_text())
    counts = Counter(icon.set for icon in sources.icons if icon.caption in sources.shared)
    data: dict[str, list] = {}
    for set_name, n in sorted(counts.items()):
        info = listed[set_name]
        entry = {"set": set_name, "name": info["name"], "author": info["author"]["name"], "pictures": n}
        entry["url"] = info["author"].get("url", "")
        data.setdefault(info["license"]["spdx"], []).append(entry)
    return data


def describe_model(folder: Path) -> dict:
    """Size and default input of the exported folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as opened:
        parameters = sum(int(np.prod(opened.get_slice(name).get_shape())) for name in opened.keys())  # noqa: SIM118
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    side = json.loads((folder / "preprocessor_config.json").read_text())["size"]["height"]
    return {"parameters": parameters / 1e6, "megabytes": size / 1e6, "side": side}
