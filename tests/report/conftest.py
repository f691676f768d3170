import numpy as np
import pytest

from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import evaluate
from kusabi.evaluation.flips import flips
from kusabi.evaluation.pool import PEERS, WAYS

CLASSES = ("whole", "cracked", "stained")
STRENGTHS = {"zero_shot": 0.6, "class_mean": 1.4, "linear_probe": 1.6, "adapted": 3.2}


def _evaluation(*, classes=CLASSES, strengths=None, seed=0, n=240, files=None, **task):
    """One run as the evaluation functions see it; ``strengths`` say how well each way answers."""
    random = np.random.default_rng([seed, 5])
    labels = np.arange(n) % len(classes)
    files = files or [f"test/{classes[label]}/{place:03}.png" for place, label in enumerate(labels)]
    strengths = {**STRENGTHS, **(strengths or {})}
    noise = random.normal(size=(n, len(classes)))

    def logits(strength):
        # Noise of its own for every strength, so that ways of equal strength answer alike.
        own = np.random.default_rng([seed, round(10 * strength)]).normal(size=noise.shape)
        return strength * np.eye(len(classes))[labels] + noise + own

    drawn = {way: np.exp(logits(strengths[way])) for way in WAYS}
    scores = {way: one / one.sum(axis=1, keepdims=True) for way, one in drawn.items()}
    answers = {way: one.argmax(axis=1) for way, one in scores.items()}
    right = {way: one == labels for way, one in answers.items()}
    targets = [
        {"tensor": f"blocks.{layer}.{name}", "tower": "vision", "layer": layer, "projection": name}
        | {"size": 4000, "entries": 37 + layer}
        for layer in (2, 3)
        for name in ("q_proj.weight", "fc1.weight")
    ]
    return {
        "schema": 1,
        "task": {"name": "tiles", "classes": list(classes),
                 "prompts": [[f"a photo of a {one} tile"] for one in classes], "shots": 4, "seed": seed,
                 "seeds": [seed], "held_out": "test split",
                 "support_pictures": 4 * len(classes), "query_pictures": n, "notes": ["two pictures were alike"],
                 "data_digest": "d" * 64} | task,
        **{way: evaluate(scores[way], labels, classes) for way in WAYS},
        "difference": compare(right["adapted"], right["zero_shot"]),
        "against_peers": {peer: compare(right["adapted"], right[peer]) for peer in PEERS},
        "best_peer": max(PEERS, key=lambda peer: right[peer].mean()),
        "pictures": [{"file": file, "label": int(labels[i])} | {way: int(answers[way][i]) for way in WAYS}
                     for i, file in enumerate(files)],
        "flips": flips(answers["zero_shot"], answers["adapted"], labels, files, classes),
        "adapter": {"kind": "sparse_delta", "support_rule": "gradient", "entries": 158, "targeted": 16000,
                    "density": 158 / 16000, "head": "prototypes", "head_entries": 1156, "blend": 0.7, "bytes": 2345,
                    "digest": f"{seed}" * 64, "targets": targets},
        "training": {"steps": 3, "learning_rate": 1e-3, "batch_size": 32, "views": 4, "augment": "safe",
                     "precision": "float32", "threads": 2, "device": "cpu",
                     "records": [{"step": s, "loss": 1.5 / s, "support_accuracy": s / 4} for s in (1, 2, 3)]},
        "cost": {"training_seconds": 12.34, "total_seconds": 75.0, "peak_memory_bytes": 1_234_000_000,
                 "images_per_second": {"zero_shot": 61.43, "adapted": 60.98}},
        "backbone": {"source": "mini", "family": "vision-text-dual-encoder", "revision": None, "licence": "Apache-2.0",
                     "digest": "b" * 64, "parameters": 200_000, "layers": {"vision": 4, "text": 2},
                     "preprocessing": {"size": 96, "fit": "pad"}},
        "environment": {"kusabi": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "cores": 2},
        "command": f"kusabi adapt tiles --shots 4 --seed {seed}",
    }  # fmt: skip


@pytest.fixture(scope="session")
def evaluation_of():
    return _evaluation
