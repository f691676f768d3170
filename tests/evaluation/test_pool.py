import copy
import json

import numpy as np
import pytest

from kusabi.errors import RunError
from kusabi.evaluation.comparison import compare
from kusabi.evaluation.evaluate import evaluate
from kusabi.evaluation.flips import flips
from kusabi.evaluation.pool import PEERS, WAYS, pool, task_key

CLASSES = ["whole", "cracked"]


def run(seed, *, files=tuple("abcdefgh"), entries=10):
    """A small evaluation of one run, with random answers."""
    random = np.random.default_rng([seed, 7])
    labels = np.array([ord(file) % 2 for file in files])
    scores = {way: random.dirichlet([1, 1], size=len(files)) for way in WAYS}
    answers = {way: scores[way].argmax(axis=1) for way in WAYS}
    right = {way: answers[way] == labels for way in WAYS}
    return {
        "schema": 1,
        "task": {
            "name": "tiles",
            "classes": CLASSES,
            "shots": 4,
            "seed": seed,
            "seeds": [seed],
            "held_out": "test split",
            "notes": [f"note {seed % 2}"],
            "data_digest": "d" * 64,
        },
        **{way: evaluate(scores[way], labels, CLASSES) for way in WAYS},
        "difference": compare(right["adapted"], right["zero_shot"]),
        "against_peers": {peer: compare(right["adapted"], right[peer]) for peer in PEERS},
        "best_peer": "class_mean",
        "pictures": [
            {"file": file, "label": int(labels[i])} | {way: int(answers[way][i]) for way in WAYS}
            for i, file in enumerate(files)
        ],
        "flips": flips(answers["zero_shot"], answers["adapted"], labels, files, CLASSES),
        "adapter": {
            "kind": "sparse_delta",
            "support_rule": "gradient",
            "entries": entries,
            "head_entries": 4,
            "digest": str(seed),
        },
        "training": {
            "steps": 2,
            "learning_rate": 1e-3,
            "records": [{"step": s, "loss": seed + s, "support_accuracy": None} for s in (1, 2)],
        },
        "cost": {
            "training_seconds": 1.0 + seed,
            "total_seconds": 2.0,
            "peak_memory_bytes": 100 + seed,
            "images_per_second": {"zero_shot": 10.0, "adapted": None},
        },
        "backbone": {"digest": "b" * 64},
        "command": f"kusabi adapt --seed {seed}",
    }


def test_one_run_is_returned_as_it_is():
    single = run(0)
    pooled = pool([single])
    assert pooled == single and pooled is not single


def test_numbers_are_means_over_seeds_and_n_counts_pictures():
    runs = [run(seed) for seed in (2, 0, 1)]
    runs[0]["cost"]["stages"] = [{"stage": "training", "seconds": 1.0, "peak_memory_bytes": 3}]
    before = copy.deepcopy(runs)
    pooled = pool(runs)
    assert runs == before, "pool changed its input"
    assert pooled["task"]["seeds"] == [0, 1, 2] and pooled["task"]["notes"] == ["note 0", "note 1"]
    for way in WAYS:
        accuracies = [one[way]["accuracy"] for one in sorted(runs, key=lambda one: one["task"]["seed"])]
        assert pooled[way]["accuracies"] == accuracies
        assert pooled[way]["accuracy"] == pytest.approx(np.mean(accuracies))
        assert pooled[way]["spread"] == pytest.approx(np.std(accuracies, ddof=1))
        assert pooled[way]["n"] == 8
        assert pooled[way]["confusion"] == np.sum([one[way]["confusion"] for one in runs], axis=0).tolist()
        assert set(pooled[way]) >= set(runs[0][way])
    difference = pooled["adapted"]["accuracy"] - pooled["zero_shot"]["accuracy"]
    assert pooled["difference"]["value"] == pytest.approx(difference)
    assert (pooled["difference"]["seeds"], pooled["difference"]["n"]) == (3, 8)
    assert pooled["cost"]["training_seconds"] == 2.0 and pooled["cost"]["peak_memory_bytes"] == 102
    assert "stages" not in pooled["cost"], "stages of one run say nothing of the mean"
    assert pooled["cost"]["images_per_second"] == {"zero_shot": 10.0, "adapted": None}
    assert [record["loss"] for record in pooled["training"]["records"]] == [2.0, 3.0]
    assert json.loads(json.dumps(pooled, allow_nan=False)) == pooled
    assert set(pooled) >= set(runs[0])


def test_flips_follow_the_majority_of_seeds():
    runs = [run(seed) for seed in range(3)]
    pooled = pool(runs)
    right = {
        way: np.array([[p[way] == p["label"] for p in one["pictures"]] for one in runs]).sum(axis=0) for way in WAYS
    }
    for kind, was, now in (("fixed", "zero_shot", "adapted"), ("broken", "adapted", "zero_shot")):
        wrong_then_right = (right[was] < 2) & (right[now] >= 2)
        assert [flip["file"] for flip in pooled["flips"][kind]] == [
            "abcdefgh"[i] for i in np.flatnonzero(wrong_then_right)
        ]
    assert len(pooled["flips"]["fixed"]) == pooled["difference"]["gained"]
    assert len(pooled["flips"]["broken"]) == pooled["difference"]["lost"]


def test_pictures_that_one_seed_learned_from_count_for_the_others():
    pooled = pool([run(0, files="abcdef"), run(1, files="cdefgh")])
    assert [picture["file"] for picture in pooled["pictures"]] == list("abcdefgh")
    assert pooled["pictures"][0]["adapted"][1] is None and pooled["pictures"][-1]["adapted"][0] is None
    assert pooled["adapted"]["n"] == pooled["difference"]["n"] == 8
    expected = pooled["adapted"]["accuracy"] - pooled["zero_shot"]["accuracy"]
    assert pooled["difference"]["value"] == pytest.approx(expected)


def test_a_pooled_task_counts_the_pictures_and_groups_of_all_seeds():
    runs = [run(0, files="abcd"), run(1, files="cdefgh")]
    for one in runs:
        lots = ["lot " + "xxxyyyzz"["abcdefgh".index(picture["file"])] for picture in one["pictures"]]
        for picture, lot in zip(one["pictures"], lots, strict=True):
            picture["group"] = lot
        one["task"] |= {"query_pictures": len(lots), "query_groups": len(set(lots))}
    assert pool(runs)["task"] | {"query_pictures": 8, "query_groups": 3} == pool(runs)["task"]
    assert "query_groups" not in pool([run(0), run(1)])["task"]


def test_seeds_that_were_judged_in_other_ways_are_told_so():
    held, crossed = run(0), run(1)
    held["task"]["held_out"], crossed["task"]["held_out"] = "rest of the folder", "cross-validation, 5 folds"
    with pytest.raises(RunError, match=r"seed 0: rest of the folder, seed 1: cross-validation, 5 folds"):
        pool([held, crossed])


def test_groups_that_runs_kept_are_what_the_pooled_intervals_count():
    runs = [run(seed) for seed in range(3)]
    plain = pool(runs)
    for one in runs:
        for picture in one["pictures"]:
            picture["group"] = "lot " + "xxxyyyzz"["abcdefgh".index(picture["file"])]
    pooled = pool(runs)
    assert pooled["difference"]["mcnemar_basis"] == "groups, majority of the seeds"
    assert pooled["difference"]["value"] == plain["difference"]["value"]
    for way in WAYS:
        wide, narrow = np.diff(pooled[way].pop("interval")), np.diff(plain[way]["interval"])
        assert wide > narrow and pooled[way]["accuracy"] == plain[way]["accuracy"]
    assert [picture["group"] for picture in pooled["pictures"]] == [f"lot {lot}" for lot in "xxxyyyzz"]
    assert all("group" not in picture for picture in plain["pictures"])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("task", {"prompts": [["a whole tile"], ["a cracked tile"]]}),
        ("backbone", {"preprocessing": {"size": 32, "fit": "pad"}}),
        ("backbone", {"preprocessing": {"size": 64, "fit": "crop"}}),
        ("adapter", {"head": "text"}),
    ],
)
def test_runs_of_other_prompts_pixels_or_heads_are_no_seeds_of_one_task_even_where_nothing_tells_the_request(
    part, change
):
    one, other = run(0), run(1)
    for each in (one, other):
        each["backbone"]["preprocessing"] = {"size": 64, "fit": "pad"}
    other[part] = other[part] | change
    with pytest.raises(RunError, match="more than their seed"):
        pool([one, other])


def test_runs_of_one_request_are_seeds_of_one_task_whatever_each_chose_for_itself():
    runs = [run(seed, entries=10 + seed) | {"asked_digest": "a" * 64} for seed in range(2)]
    for seed, one in enumerate(runs):
        one["adapter"] |= {"placement": f"vision:{seed}:*", "blend": seed / 2}
    assert pool(runs)["task"]["seeds"] == [0, 1]
    with pytest.raises(RunError, match="more than their seed"):
        pool([runs[0], runs[1] | {"asked_digest": "b" * 64}])


def test_two_tasks_of_one_seed_are_told_apart_rather_than_called_twice_the_same():
    assert task_key(run(0) | {"asked_digest": "a"}) != task_key(run(0) | {"asked_digest": "b"})
    with pytest.raises(RunError, match="more than their seed"):
        pool([run(0) | {"asked_digest": "a"}, run(0) | {"asked_digest": "b"}])


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "no evaluation"),
        ([run(0), run(0)], "comes twice"),
        ([run(0), run(1, entries=20)], "more than their seed"),
        ([pool([run(0), run(1)]), run(2)], "pooled already"),
    ],
)
def test_what_is_not_one_task_is_refused(runs, said):
    with pytest.raises(RunError, match=said):
        pool(runs)
