from typing import get_args

import pytest

from kusabi.evaluation.pool import WAYS, pool
from kusabi.report import facts
from kusabi.report.words import LANGUAGES, read_words
from kusabi.spec import AdapterSpec

WORDS = read_words("en")
STAGES = [
    {"stage": "start-up", "seconds": 2.0, "peak_memory_bytes": 300_000_000},
    {"stage": "training", "seconds": 75.0, "peak_memory_bytes": 1_200_000_000},
    {"stage": "a <new> one", "seconds": 23.0, "peak_memory_bytes": 1_200_000_000},
]


def plain(rows):
    return {row[0]: [cell.replace("\u00a0", " ").replace("−", "-") for cell in row[1:]] for row in rows}


def test_the_table_of_metrics_holds_the_numbers_of_the_evaluation(evaluation_of):
    evaluation = evaluation_of()
    rows = plain((label, *cells) for label, _, cells in facts.metrics(evaluation, WORDS))
    for label, key in (("Accuracy", "accuracy"), ("Balanced accuracy", "balanced_accuracy"), ("Macro-F1", "macro_f1")):
        assert rows[label] == [f"{evaluation[way][key] * 100:.1f} %" for way in WAYS]
    for label, key in (("AUROC", "auroc"), ("Brier score", "brier"), ("Negative log-likelihood", "nll")):
        assert rows[label] == [f"{evaluation[way][key]:.3f}" for way in WAYS]
    recalls = [evaluation[way]["recall_at_false_alarm"]["recall"] for way in WAYS]
    assert rows["Recall at 5\u00a0% false alarms"] == [f"{recall * 100:.1f} %" for recall in recalls]
    assert rows["95\u00a0% interval"][0] == "{:.1f} to {:.1f} %".format(
        *(100 * x for x in evaluation["zero_shot"]["interval"])
    )


def test_the_paired_table_holds_every_comparison(evaluation_of):
    evaluation = evaluation_of()
    sides = [evaluation["difference"], *(evaluation["against_peers"][peer] for peer in ("class_mean", "linear_probe"))]
    rows = plain(facts.paired(evaluation, WORDS))
    assert rows["Difference in points"] == [f"{one['value'] * 100:+.1f}" for one in sides]
    assert rows["Only the adapter is right"] == [str(one["gained"]) for one in sides]
    assert rows["Only the other is right"] == [str(one["lost"]) for one in sides]
    effects = [f"{one['minimum_detectable_effect'] * 100:.1f}" for one in sides]
    assert rows["Minimum detectable effect in points"] == effects


def test_trained_entries_are_set_against_targets_and_model(evaluation_of):
    rows = plain(facts.trained(evaluation_of(), WORDS))
    assert rows["Trained weight entries"] == ["158"]
    assert rows["Share of the targeted weights"] == ["0.988 %"] and rows["Share of the whole model"] == ["0.079 %"]
    assert rows["Classifier entries"] == ["1,156"] and rows["Adapter file"] == ["2.3 kB"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_and_rule_of_a_spec_has_words(language):
    words = read_words(language)
    kinds, rules = (get_args(AdapterSpec.model_fields[name].annotation) for name in ("kind", "support_rule"))
    assert all(f"kind.{kind}" in words.texts and f"trained.lead_{kind}" in words.texts for kind in kinds)
    assert all(f"rule.{rule}" in words.texts for rule in rules)


def test_how_entries_were_chosen_is_said_of_adapters_that_have_some_to_choose(evaluation_of):
    evaluation, said = evaluation_of(), {}
    for kind in ("sparse_delta", "low_rank", "hybrid", "bottleneck", "made elsewhere"):
        evaluation["adapter"]["kind"] = kind
        said[kind] = "Chosen by" in plain(facts.trained(evaluation, WORDS)), facts.lead(evaluation, WORDS)
    assert {kind for kind, (rule, _) in said.items() if not rule} == {"low_rank", "bottleneck"}
    assert "changes none of its weights" in said["bottleneck"][1] and "a few of its weights" in said["sparse_delta"][1]
    assert said["made elsewhere"][1] == WORDS("trained.lead") and len({lead for _, lead in said.values()}) == 5


def test_cost_is_told_apart_with_and_without_adapter(evaluation_of):
    rows = plain(facts.cost(evaluation_of(), WORDS))
    assert rows["Training"] == ["12.3 s"] and rows["Whole run"] == ["1 min 15 s"] and rows["Peak memory"] == ["1.2 GB"]
    assert rows["Speed without adapter"] == ["61.4 pictures/s"] and rows["Speed with adapter"] == ["61.0 pictures/s"]


def test_entries_by_projection_add_up_to_all_entries(evaluation_of):
    rows = facts.projections(evaluation_of(), WORDS)
    assert [row[0] for row in rows] == ["Vision tower: q_proj.weight", "Vision tower: fc1.weight"]
    assert sum(int(row[2]) for row in rows) == 158 and {row[1] for row in rows} == {"2"}


def test_pooled_runs_show_every_seed_digest_and_command(evaluation_of):
    pooled = pool([evaluation_of(seed=seed) for seed in range(3)])
    rows = plain(facts.digests(pooled, WORDS))
    assert [rows[f"Adapter, seed {seed}"] for seed in range(3)] == [[str(seed) * 64] for seed in range(3)]
    assert facts.commands(pooled) == [f"kusabi adapt tiles --shots 4 --seed {seed}" for seed in range(3)]
    assert plain(facts.summary(pooled, WORDS))["Seeds"] == ["3 (number 0, 1, 2)"]


def test_pictures_that_some_seeds_learned_from_are_said(evaluation_of):
    files = [f"{place:03}.png" for place in range(243)]
    pooled = pool([evaluation_of(seed=seed, files=files[3 * seed : 240 + 3 * seed]) for seed in range(2)])
    judged = plain(facts.summary(pooled, WORDS))["Judged on"][0]
    assert judged.startswith("243 pictures, each by the seeds that did not learn from it")


@pytest.mark.parametrize(
    ("held_out", "said"),
    [("rest of the folder", "never learned from"), ("cross-validation, 5 folds", "240 pictures (cross")],
)
def test_what_was_judged_is_said(evaluation_of, held_out, said):
    assert said in plain(facts.summary(evaluation_of(held_out=held_out), WORDS))["Judged on"][0]


def test_what_was_not_recorded_is_a_dash(evaluation_of):
    evaluation = evaluation_of()
    evaluation["cost"] = {"images_per_second": None}
    evaluation["backbone"] = {}
    evaluation["adapter"] = {}
    evaluation["training"] = {}
    for table in (facts.cost, facts.card, facts.trained):
        assert {cell for row in table(evaluation, WORDS) for cell in row[1:]} == {"–"}
    assert facts.projections(evaluation, WORDS) == []
    assert plain(facts.settings(evaluation, WORDS))["Steps"] == ["–"]


def test_stages_have_their_time_share_and_memory_and_those_without_words_their_own_name(evaluation_of):
    evaluation = evaluation_of()
    assert facts.stages(evaluation, WORDS) == []
    evaluation["cost"]["stages"] = STAGES
    assert [tuple(cell.replace("\u00a0", " ") for cell in row) for row in facts.stages(evaluation, WORDS)] == [
        ("Start-up of the program", "2.0 s", "2.0 %", "300.0 MB"),
        ("Training steps", "1 min 15 s", "75.0 %", "1.2 GB"),
        ("a <new> one", "23.0 s", "23.0 %", "1.2 GB"),
    ]
