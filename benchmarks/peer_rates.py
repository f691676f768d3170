"""Step sizes of the peers on a development task, so that nobody is judged with a bad one.

``python -m benchmarks.peer_rates FOLDER`` tries rates around those of ``peers/settings.py`` on an ordinary folder whose
test split must be development pictures: what the settings are chosen on is no query picture of any result.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.peers import PEERS
from benchmarks.peers.material import gather
from benchmarks.peers.settings import SETTINGS
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.data.prompts import class_prompts
from kusabi.data.source import read_dataset
from kusabi.data.split import Split, few_shot_split
from kusabi.training.precision import resolve

SETTING_OF = {"wise_ft": "full"}  # methods that learn by the setting of another


def main(words: Sequence[str] | None = None) -> None:
    """Print a JSON line for every method and rate: accuracy, which decides, and the mean log-loss."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_rates", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=sorted(SETTINGS.keys() & PEERS.keys()))
    parser.add_argument(
        "--factors", type=lambda text: [float(part) for part in text.split(",")], default=[0.3, 1.0, 3.0]
    )
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--query", type=int, default=240, help="at most so many development pictures")
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--input-size", type=int, default=84)
    asked = parser.parse_args(words)
    dataset = read_dataset(str(asked.folder))
    split = few_shot_split(dataset, asked.shots, asked.seed)
    if not isinstance(split, Split):
        parser.error(f"{asked.folder}: needs a test split of development pictures")
    each = asked.query // len(dataset.classes)
    by_class = [[e for e in split.query if e.label == label][:each] for label in range(len(dataset.classes))]
    query = [example for of_class in by_class for example in of_class]
    truth = np.array([example.label for example in query])
    material = gather(
        load_backbone(asked.backbone, input_size=asked.input_size), dataset, split.support, query,
        class_prompts(dataset.classes, None, {}), shots=asked.shots, seed=asked.seed, steps=asked.steps,
        precision=resolve("auto", "cpu"),
    )  # fmt: skip
    for name in asked.methods:
        own = SETTING_OF.get(name) or name
        for factor in asked.factors:
            setting = replace(SETTINGS[own], rate=SETTINGS[own].rate * factor)
            with patch.dict(SETTINGS, {own: setting}):
                found = PEERS[name].run(material)
            chances = found.probabilities[np.arange(len(truth)), truth]
            line = {
                "task": asked.folder.name, "method": name, "rate": setting.rate, "shots": asked.shots,
                "log_loss": float(-np.log(np.maximum(chances, 1e-12)).mean()),
                "accuracy": float((found.probabilities.argmax(1) == truth).mean()), "seconds": found.seconds,
            }  # fmt: skip
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
