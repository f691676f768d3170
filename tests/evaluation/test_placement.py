import itertools

import numpy as np
import pytest

from kusabi.evaluation.placement import aligned, correlations, recommend, spearman, summary


def line(seed=0, right="1100", losses=(0.5, 0.5, 0.5, 0.5), layers=4, **more):
    return {
        "seed": seed, "accuracy": right.count("1") / len(right), "log_loss": 0.7, "right": right, "seconds": 1.0,
        "support_loss": None if losses is None else float(np.mean(losses)), "entries": 10,
        "support_losses": None if losses is None else list(losses), "layers_backward": layers,
    } | more  # fmt: skip


def ranks(values):
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def test_rank_correlation_is_pearsons_of_mean_ranks():
    one, other = [3.0, 1.0, 2.0, 2.0, 5.0], [0.2, 0.1, 0.4, 0.1, 0.9]
    a, b = (np.array(ranks(values)) - 3 for values in (one, other))
    assert spearman(one, other) == pytest.approx(float(a @ b / np.sqrt((a @ a) * (b @ b))))
    assert spearman([1, 2, 3], [1, 4, 9]) == pytest.approx(1) and spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert spearman([1, 2], [1, 2]) is None and spearman([1, 1, 1], [1, 2, 3]) is None


def test_correlations_are_of_each_tower_and_a_small_loss_is_good():
    energies = {("vision", 0): 1.0, ("vision", 1): 2.0, ("vision", 2): 3.0, ("text", 0): 9.0}
    alone = {place: {"accuracy": energy / 10, "log_loss": -energy} for place, energy in energies.items()}
    found = correlations(energies, alone)
    assert found["vision"] == {"n": 3, "accuracy": pytest.approx(1), "log_loss": pytest.approx(1)}
    assert found["text"] == {"n": 1, "accuracy": None, "log_loss": None} and found["all"]["n"] == 4


def test_seeds_that_judge_different_pictures_are_laid_over_one_another():
    files = {3: ["a", "b", "c"], 4: ["c", "d"]}
    right, base, judged = aligned(
        [line(3, "110"), line(4, "01")], [line(3, "001"), line(4, "11")], files
    )  # fmt: skip
    assert judged.astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]
    assert right.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert base.astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]


def test_a_summary_is_of_all_seeds_and_against_the_default():
    lines, default = [line(0, "1110"), line(1, "1100")], [line(0, "1000"), line(1, "1000")]
    found = summary("vision:1:*", lines, default, {0: list("abcd"), 1: list("abcd")})
    assert found["accuracy"] == pytest.approx(0.625) and found["difference"]["value"] == pytest.approx(0.375)
    assert found["difference"]["seeds"] == 2 and found["accuracies"] == [0.75, 0.5]
    assert summary("x", [line(losses=None)], [line()], {0: list("abcd")})["support_loss"] is None


def test_the_default_against_itself_differs_by_nothing_and_equal_answers_of_another_by_what_so_few_can_hide():
    default, files = [line(0, "1000")], {0: list("abcd")}
    assert summary("default", default, default, files)["difference"]["interval"] == [0, 0]
    low, high = summary("other", [line(0, "1000")], default, files)["difference"]["interval"]
    assert low < 0 < high


def test_the_query_pictures_have_no_say_in_what_is_recommended():
    lines = {"default": [line(losses=(0.5, 0.6))], "good": [line(losses=(0.1, 0.2))], "luck": [line(losses=(0.9, 0.8))]}
    for rights in itertools.product(["0000", "1111"], repeat=3):
        shown = {
            name: [line(right=right, losses=of[0]["support_losses"])]
            for (name, of), right in zip(lines.items(), rights, strict=True)
        }
        found = recommend(shown, "default")
        assert (found["placement"], found["action"]) == ("good", "move")
        assert found["support_gain"] == pytest.approx(0.4)


def test_what_cannot_be_told_from_the_default_is_no_reason_to_move():
    lines = {"default": [line(losses=(0.5, 0.6, 0.5))], "best": [line(losses=(0.1, 0.9, 0.5))]}
    assert recommend(lines, "default")["action"] == "keep"
    lines["best"] = [line(losses=(0.4, 0.51, 0.42))]
    assert recommend(lines, "default") | {"tied": 0, "support_error": 0} == {
        "placement": "best", "action": "move", "support_gain": pytest.approx(0.27 / 3), "support_error": 0, "tied": 0,
    }  # fmt: skip


def test_the_best_of_many_has_to_be_better_than_luck_would_make_it():
    rng = np.random.default_rng(0)
    moved = dict.fromkeys((1, 60), 0)
    for _ in range(200):
        base = rng.exponential(1, 40)
        lines = {"default": [line(losses=base)]}
        lines |= {f"other {n}": [line(losses=base + rng.normal(0, 0.5, 40))] for n in range(60)}
        for few in moved:
            some = {name: lines[name] for name in list(lines)[: few + 1]}
            moved[few] += recommend(some, "default")["action"] == "move"
    assert all(count / 200 < 0.12 for count in moved.values())


def test_few_pictures_or_groups_are_no_reason_to_believe_the_best_of_many():
    rng, moved = np.random.default_rng(3), dict.fromkeys(("pictures", "groups"), 0)
    for _ in range(200):
        lines = {"default": [line(losses=[1.0] * 5)]}
        lines |= {f"other {n}": [line(losses=1.0 + rng.normal(0, 0.5, 5))] for n in range(20)}
        moved["pictures"] += recommend(lines, "default")["action"] == "move"
        lots = {name: [line(losses=np.repeat(of[0]["support_losses"], 6))] for name, of in lines.items()}
        moved["groups"] += recommend(lots, "default", pictures=np.repeat(range(5), 6).tolist())["action"] == "move"
    assert all(count / 200 < 0.1 for count in moved.values())


def test_the_same_pictures_in_several_seeds_are_no_further_evidence():
    rng, moved = np.random.default_rng(1), dict.fromkeys(("alike", "apart"), 0)
    for _ in range(100):
        gains = rng.normal(0, 0.5, (40, 30))
        lines = {"default": [line(seed, losses=[1.0] * 30) for seed in range(3)]}
        noise = rng.normal(0, 0.1, (40, 3, 30))
        lines |= {f"other {n}": [line(s, losses=1.0 + gains[n] + noise[n, s]) for s in range(3)] for n in range(40)}
        moved["alike"] += recommend(lines, "default", pictures=[*range(30)] * 3)["action"] == "move"
        moved["apart"] += recommend(lines, "default", pictures=range(90))["action"] == "move"
    assert moved["alike"] / 100 < 0.15 < moved["apart"] / 100


def test_seeds_with_pictures_of_their_own_are_taken_as_before():
    rng = np.random.default_rng(2)
    lines = {name: [line(seed, losses=rng.random(9)) for seed in range(3)] for name in ("default", "a", "b")}
    assert recommend(lines, "default", pictures=range(27)) == recommend(lines, "default")
    looked = rng.random(27) < 0.5
    assert recommend(lines, "default", looked, range(27)) == recommend(lines, "default", looked)
    lines["a"] = [line(seed, losses=np.array(one["support_losses"]) - 0.3 - 0.1 * rng.random(9))
                  for seed, one in enumerate(lines["default"])]  # fmt: skip
    found = recommend(lines, "default", pictures=range(27))
    gains = np.subtract(*(np.concatenate([one["support_losses"] for one in lines[name]]) for name in ("default", "a")))
    assert (found["placement"], found["support_gain"]) == ("a", gains.mean())
    assert found["support_error"] == pytest.approx(gains.std(ddof=1) / np.sqrt(27), rel=1e-12)


def test_of_those_that_cannot_be_told_apart_the_one_through_the_fewest_layers_is_taken():
    lines = {
        "default": [line(losses=(0.9, 0.9, 0.9))],
        "deep": [line(losses=(0.1, 0.1, 0.2), layers=8)],
        "shallow": [line(losses=(0.1, 0.2, 0.1), layers=1)],
    }
    found = recommend(lines, "default")
    assert found["placement"] == "shallow" and found["tied"] == ["deep", "shallow"]


def test_with_one_picture_a_class_the_default_stays():
    found = recommend({"default": [line(losses=None)], "other": [line(losses=None)]}, "default")
    assert (found["placement"], found["action"], found["support_gain"]) == ("default", "unknown", None)
