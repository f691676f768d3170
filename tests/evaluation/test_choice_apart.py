import numpy as np
import pytest

from kusabi.evaluation.choice_apart import Draw, choose_apart, judges_choose, worth_of
from kusabi.evaluation.placement import recommend

NAMES = ("default", "a", "b", "c")


def drawn(random, pictures, seeds=2, names=NAMES):
    """Lines whose losses and answers are luck, and tell the same luck: what is wrong has a large loss."""
    lines = {name: [] for name in names}
    for seed in range(seeds):
        for layers, name in enumerate(names):
            right = random.random(pictures) < 0.5
            losses = np.where(right, 0.2, 1.2) + 0.1 * random.random(pictures)
            lines[name].append(
                {
                    "seed": seed,
                    "right": "".join("01"[int(hit)] for hit in right),
                    "support_losses": losses.tolist(),
                    "layers_backward": layers,
                }
            )
    return lines


@pytest.fixture(autouse=True)
def easily_moved(monkeypatch):
    """As good as anything is a reason here: what would keep the default hides nothing else."""
    monkeypatch.setattr("kusabi.evaluation.placement.CHANCE", 0.5)


def folded(pictures, seeds=2, folds=3):
    """Of seed s, picture ``s + i`` is in fold ``i % folds``: seeds share most pictures, in other folds."""
    return {
        seed: Draw(*[[f"p{seed + i}" for i in range(pictures)]] * 2, [i % folds for i in range(pictures)])
        for seed in range(seeds)
    }


def accuracy(lines):
    return np.mean([line["right"].count("1") / len(line["right"]) for line in lines])


@pytest.mark.parametrize("luck", [1, 4, 5, 9])
def test_every_part_is_answered_by_what_the_other_pictures_choose(luck):
    lines, draws = drawn(np.random.default_rng(luck), 12, names=(*NAMES, "d", "e")), folded(12)
    found = choose_apart(lines, "default", draws)
    answers = dict.fromkeys(lines, 0)
    for seed, draw in draws.items():
        for i in range(12):
            judged = {draw.judged[j] for j in range(12) if draw.part[j] == draw.part[i]}
            kept, of = {name: [] for name in lines}, []
            for other in draws:
                at = [j for j, picture in enumerate(draws[other].labelled) if picture not in judged]
                of += [draws[other].labelled[j] for j in at]
                for name in lines:
                    losses = lines[name][other]["support_losses"]
                    kept[name].append({**lines[name][other], "support_losses": [losses[j] for j in at]})
            taken = recommend(kept, "default", pictures=of)["placement"]
            assert found.lines[seed]["right"][i] == lines[taken][seed]["right"][i]
            answers[taken] += 1
    assert found.answers == {name: n for name, n in answers.items() if n}


def test_how_well_pictures_were_answered_never_chooses_for_them():
    draws, random = folded(12), np.random.default_rng(0)
    for trial in range(30):
        lines = drawn(random, 12, names=(*NAMES, "d", "e"))
        before = choose_apart(lines, "default", draws)
        judged = {picture for picture, part in zip(draws[1].judged, draws[1].part, strict=True) if part == trial % 3}
        for of in lines.values():
            for line in of:
                for i, picture in enumerate(draws[line["seed"]].labelled):
                    if picture in judged:
                        line["support_losses"][i] = float(random.random() * 50)
        after = choose_apart(lines, "default", draws)
        at = [i for i in range(12) if draws[1].part[i] == trial % 3]
        assert [before.lines[1]["right"][i] for i in at] == [after.lines[1]["right"][i] for i in at]


def test_luck_alone_gains_nothing_while_the_best_row_of_the_table_promises_much(monkeypatch):
    monkeypatch.setattr("kusabi.evaluation.placement.CHANCE", 6.0)  # of forty, one standard error
    random, names = np.random.default_rng(1), ("default", *(f"p{i}" for i in range(40)))
    promised, gained = [], []
    for _ in range(60):
        lines, draws = drawn(random, 20, seeds=1, names=names), folded(20, seeds=1, folds=5)
        base = accuracy(lines["default"])
        promised.append(accuracy(lines[recommend(lines, "default")["placement"]]) - base)
        gained.append(accuracy(choose_apart(lines, "default", draws).lines) - base)
    error = np.std(gained, ddof=1) / np.sqrt(len(gained))
    assert np.mean(promised) > 0.15 and abs(np.mean(gained)) < 3 * error < 0.1


def test_with_a_test_split_all_pictures_get_the_one_recommended_placement():
    lines = drawn(np.random.default_rng(0), 12)
    draws = {seed: Draw([f"p{i}" for i in range(12)], [f"q{i}" for i in range(12)], [0] * 12) for seed in range(2)}
    taken = recommend(lines, "default")["placement"]
    found = choose_apart(lines, "default", draws)
    assert [line["right"] for line in found.lines] == [line["right"] for line in lines[taken]] and taken != "default"
    assert found.answers == {taken: 24} and not judges_choose(draws)


def test_pictures_that_judge_one_seed_and_choose_in_another_are_known():
    first, other = Draw(["a", "b"], ["c", "d"], [0, 0]), Draw(["c", "a"], ["b", "d"], [0, 0])
    assert not judges_choose({0: first}) and not judges_choose({1: other}) and judges_choose({0: first, 1: other})


def test_where_nothing_is_left_to_choose_by_the_default_answers():
    lines, draws = drawn(np.random.default_rng(5), 4, seeds=1), folded(4, seeds=1, folds=1)
    assert choose_apart(lines, "default", draws).answers == {"default": 4}
    for of in lines.values():
        of[0]["support_losses"] = None
    assert choose_apart(lines, "default", folded(4, seeds=1)).answers == {"default": 4}


@pytest.mark.parametrize(
    ("advice", "held_out", "seeds", "crossed", "worth"),
    [
        ({"chosen_anew": None}, "test split", [0], False, "unseen"),
        ({"chosen_anew": {"a": 3}}, "cross-validation, 3 folds", [0], True, "anew"),
        ({}, "cross-validation, 3 folds", [0], True, "same"),
        ({}, "rest of the folder", [0, 1], False, "same"),
        ({}, "rest of the folder", [0], False, "unseen"),
        ({}, "test split", [0, 1], False, "unseen"),
    ],
)
def test_what_a_file_says_of_its_worth(advice, held_out, seeds, crossed, worth):
    found = {"recommendation": advice, "task": {"held_out": held_out, "seeds": seeds}, "cross_validated": crossed}
    assert worth_of(found) == worth
