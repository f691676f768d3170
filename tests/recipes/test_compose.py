"""Two tiny tasks, trained apart, beside each other, and composed, through the functions that the command line calls."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from kusabi import cli
from kusabi.adapters.attach import attached
from kusabi.adapters.checkpoint import load_adapter, save_adapter
from kusabi.adapters.compose import compose as compose_deltas
from kusabi.adapters.compose_adapters import compose_adapters, labels_of
from kusabi.errors import AdapterError, CheckpointError, DataError, KusabiError, RunError, SpecError
from kusabi.recipes.adapt import adapt
from kusabi.recipes.compose import compose
from kusabi.recipes.export import export
from kusabi.recipes.judge import classifier
from kusabi.recipes.new_classes import new_prompts
from kusabi.recipes.stored_adapter import evaluate_stored, open_adapter, predict
from kusabi.spec_file import build

SMALL = {
    "adapter": {"density": 0.02, "support_rule": "random", "projections": ["mlp.*"]},
    "data": {"shots": 2, "views": 2},
    "training": {"steps": 2, "learning_rate": 1e-2, "checkpoint_every": 1},
}


@pytest.fixture(scope="module")
def shop(tiny, tmp_path_factory):
    """Two tasks of other classes, an adapter for each, and one of low rank for the second, on one tiny model."""
    from tests.conftest import KINDS, tile

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("shop")

    def pictures(name, labels):
        for split, count in (("train", 3), ("test", 4)):
            for kind, label in zip(KINDS, labels, strict=True):
                place = root / name / split / label
                place.mkdir(parents=True)
                for i in range(count):
                    tile(kind, f"{name}/{split}/{i}").save(place / f"{split}-{i:02}.png")

    def run(name, data, **fields):
        spec = build({**SMALL, "backbone": {"backbone": str(tiny("clip"))}, **fields})
        adapt(str(root / data), spec, root / name)

    pictures("parts", ("cat", "dog", "plate"))
    pictures("tiles", ("dent", "metal", "red"))
    run("a", "parts")
    run("b", "tiles", seed=1)
    beside = {**SMALL["adapter"], "beside": [str(root / "a")]}
    run("free", "tiles", adapter=beside)
    run("lora", "tiles", adapter={"kind": "low_rank", "projections": ["mlp.*"]}, low_rank={"rank": 1})
    return root


def taken(run):
    delta = load_adapter(run / "adapter").delta
    return {(name, i) for name, indices, _ in delta.parts() for i in indices.tolist()}


def test_composed_adapters_of_two_tasks_know_all_classes_and_are_an_ordinary_adapter(shop, tiny, tmp_path):
    seen, out, model = [], tmp_path / "both", str(tiny("clip"))
    a, b = (load_adapter(shop / name / "adapter") for name in "ab")
    found = compose(
        [shop / "a", shop / "b"], out, weights=[1, 0.5], measure=[str(shop / "parts"), str(shop / "tiles")],
        show=lambda card: seen.append((out.exists(), card["interference"][0]["total"]["shared"])),
    )  # fmt: skip
    assert seen == [(False, len(taken(shop / "a") & taken(shop / "b")))], "the card comes before anything is written"
    made = load_adapter(out)
    assert made.card["classes"] == ["cat", "dent", "dog", "metal", "plate", "red"]
    wanted = compose_deltas([a.delta, b.delta], [1, 0.5])
    assert torch.equal(made.delta.values, wanted.values.to(torch.bfloat16).float())
    assert torch.equal(made.delta.indices, wanted.indices)
    about = made.card["composition"]
    weights = [hashlib.sha256((shop / n / "adapter" / "adapter.safetensors").read_bytes()).hexdigest() for n in "ab"]
    assert [(s["digest"], s["weights_digest"], s["weight"]) for s in about["sources"]] == [
        (a.card["digest"], weights[0], 1.0), (b.card["digest"], weights[1], 0.5)
    ]  # fmt: skip
    assert about["how"] == "sum" and about["interference"] == found["interference"]
    assert about["measured"] == json.loads(json.dumps(found["measured"]))
    assert str(shop) not in (out / "adapter.json").read_text(), "no paths of this machine"

    for one, run, data in zip(about["measured"], "ab", ("parts", "tiles"), strict=True):
        alone = evaluate_stored(shop / run, str(shop / data))
        together = evaluate_stored(out, str(shop / data), backbone=model)
        accuracies = alone["adapted"]["accuracy"], together["adapted"]["accuracy"]
        assert (one["alone"]["accuracy"], one["composed"]["accuracy"]) == accuracies
        assert one["difference"]["value"] == pytest.approx(accuracies[1] - accuracies[0])
        low, high = one["difference"]["interval"]
        assert low <= one["difference"]["value"] <= high and one["difference"]["n"] == 12
        assert one["composed"]["accuracy"] <= one["composed_among_own"]["accuracy"] and not one["learned_from"]
    (answer,) = predict(out, [next((shop / "parts" / "test" / "cat").iterdir())], backbone=model)
    assert set(answer["scores"]) == set(made.card["classes"])
    (answer,) = predict(out, [next((shop / "parts" / "test" / "cat").iterdir())], also=["bolt"], backbone=model)
    assert set(answer["scores"]) == {*made.card["classes"], "bolt"}
    exported = export(out, tmp_path / "merged", "merged", backbone=model)
    assert json.loads((exported / "kusabi.json").read_text())["classes"] == made.card["classes"]


def test_pictures_of_one_lot_are_one_witness_to_what_composing_costs(shop, tmp_path):
    for label in ("metal", "dent", "red"):
        for i in range(4):
            (folder := tmp_path / "lots" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(shop / "tiles" / "test" / label / f"test-{i:02}.png", folder)
    lines = [f"{label}/test-{i:02}.png,{label},lot {i}" for label in ("metal", "dent", "red") for i in range(4)]
    (tmp_path / "lots" / "metadata.csv").write_text("file_name,label,lot\n" + "\n".join(lines))
    (grouped,), (plain,) = (
        compose([shop / "b"], None, weights=[5], dry_run=True, measure=[str(tmp_path / "lots")], group_column=column)[
            "measured"
        ]
        for column in ("lot", None)
    )
    assert (grouped["query_groups"], grouped["intervals_by"]) == (4, "groups") and "query_groups" not in plain
    for side in ("zero_shot", "alone", "composed"):
        assert grouped[side]["accuracy"] == plain[side]["accuracy"]
        assert grouped[side]["interval"] != plain[side]["interval"]
    assert grouped["difference"]["mcnemar_basis"] == "groups, one run"


def test_new_classes_of_adapters_with_other_templates_are_refused(shop):
    a, b = (load_adapter(shop / name / "adapter") for name in "ab")
    data = {**b.card["spec"]["data"], "templates": ["the {}"]}
    b = replace(b, card={**b.card, "spec": {**b.card["spec"], "data": data}})
    with pytest.raises(DataError, match="whose templates differ"):
        new_prompts(compose_adapters([a, b], ["a", "b"], [1, 1]), ["bolt"])


def test_a_low_rank_adapter_among_them_is_composed_and_attached_as_both_are(shop, tiny, tmp_path):
    out = tmp_path / "mixed"
    compose([shop / "a", shop / "lora"], out)
    stored = open_adapter(out, backbone=str(tiny("clip")))
    assert stored.adapter.card["kind"] == "hybrid"
    pixels, module = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)), stored.backbone.module
    both = [part for name in ("a", "lora") for part in load_adapter(shop / name / "adapter").parts]
    with torch.no_grad():
        frozen = stored.backbone.embed_images(pixels)
        with attached(module, *both):
            wanted = stored.backbone.embed_images(pixels)
        with attached(module, *stored.adapter.parts):
            found = stored.backbone.embed_images(pixels)
    assert torch.allclose(found, wanted, atol=1e-5) and not torch.allclose(found, frozen, atol=1e-5)
    assert evaluate_stored(out, str(shop / "tiles"), backbone=str(tiny("clip")))["adapted"]["n"] == 12
    with pytest.raises(AdapterError, match="adapter 2: 'ties' is a rule for single entries"):
        compose([shop / "a", shop / "lora"], tmp_path / "no", how="ties")


def test_what_is_measured_is_what_will_be_stored(shop):
    adapters = [load_adapter(shop / name / "adapter") for name in ("a", "lora")]
    composed = compose_adapters(adapters, labels_of(adapters), [0.3, 0.7])
    for tensor in (*(part.values.data for part in composed.parts), composed.head["displacement"]):
        assert torch.equal(tensor, tensor.to(torch.bfloat16).float())


def test_one_adapter_with_weight_1_is_itself_and_the_order_never_matters(shop, tmp_path):
    compose([shop / "a"], tmp_path / "one")
    one, a = load_adapter(tmp_path / "one"), load_adapter(shop / "a" / "adapter")
    assert torch.equal(one.delta.values, a.delta.values) and torch.equal(one.delta.indices, a.delta.indices)
    assert (
        all(torch.equal(one.head[name], a.head[name]) for name in a.head) and one.card["classes"] == a.card["classes"]
    )
    for name, order in (("ab", "ab"), ("ba", "ba")):
        compose([shop / run for run in order], tmp_path / name)
    files = [(tmp_path / name / "adapter.safetensors").read_bytes() for name in ("ab", "ba")]
    assert files[0] == files[1]
    again = compose([shop / "a", shop / "a"], tmp_path / "dry", dry_run=True)
    assert not (tmp_path / "dry").exists() and "out" not in again["composed"]
    assert again["interference"][0]["total"]["share"] == 1.0 and again["sources"][1]["label"].endswith("(2)")


def test_an_adapter_trained_beside_another_shares_nothing_with_it_and_says_so(shop, tmp_path):
    free, a = load_adapter(shop / "free" / "adapter"), load_adapter(shop / "a" / "adapter")
    assert not taken(shop / "free") & taken(shop / "a") and taken(shop / "b") & taken(shop / "a")
    assert len(free.delta) == len(a.delta) and free.delta.values.count_nonzero() > 0
    assert free.card["beside"] == free.card["spec"]["adapter"]["beside"] == [a.card["digest"]]
    out = tmp_path / "both"
    found = compose([shop / "a", shop / "free"], out, how="disjoint")
    assert found["interference"][0]["total"]["shared"] == 0
    both = {
        (n, i): v
        for n, at, vs in load_adapter(out).delta.parts()
        for i, v in zip(at.tolist(), vs.tolist(), strict=True)
    }
    for adapter in (free, a):
        for name, indices, values in adapter.delta.parts():
            assert [both[name, i] for i in indices.tolist()] == values.tolist(), "neither touches the other"
    with pytest.raises(AdapterError, match="the supports overlap in"):
        compose([shop / "a", shop / "b"], tmp_path / "no", how="disjoint")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"support_rule": "random", "moves": {"move_every": 1, "move_share": 0.8, "move_random": 1.0}},
        {"support_rule": "gradient", "moves": {"move_every": 1, "move_share": 0.8, "move_random": 0.0}},
        {"support_rule": "gradient", "granularity": "1x4"},
        {"support_rule": "change"},
    ],
    ids=str,
)
def test_no_way_of_choosing_entries_or_moving_them_takes_one_of_the_adapter_beside(shop, tiny, tmp_path, fields):
    fields = dict(fields)
    moves = fields.pop("moves", {})
    adapter = {**SMALL["adapter"], "density": 0.3, "beside": [str(shop / "a"), str(shop / "free")], **fields}
    training = {**SMALL["training"], "steps": 4}
    spec = build(
        {**SMALL, "backbone": {"backbone": str(tiny("clip"))}, "adapter": adapter, "moves": moves, "training": training}
    )
    adapt(str(shop / "tiles"), spec, tmp_path / "run")
    third = taken(tmp_path / "run")
    assert third and not third & (taken(shop / "a") | taken(shop / "free"))


def test_a_run_beside_another_goes_on_to_the_same_bytes_and_only_beside_the_same(shop, tiny, tmp_path, monkeypatch):
    adapter = {**SMALL["adapter"], "support_rule": "gradient", "beside": [str(tmp_path / "other")]}
    moves = {"move_every": 1, "move_share": 0.8}
    fields = {**SMALL, "backbone": {"backbone": str(tiny("clip"))}, "adapter": adapter, "moves": moves}
    spec = build({**fields, "training": {**SMALL["training"], "steps": 4}})
    save_adapter(tmp_path / "other", load_adapter(shop / "a" / "adapter"))
    adapt(str(shop / "tiles"), spec, tmp_path / "whole")
    calls = []

    def stop(stage, done, total, **facts):
        calls.append(stage)
        if stage == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(str(shop / "tiles"), spec, tmp_path / "cut", watch=stop)
    adapt(str(shop / "tiles"), spec, tmp_path / "cut", resume=True)
    files = [(tmp_path / run / "adapter" / "adapter.safetensors").read_bytes() for run in ("whole", "cut")]
    assert files[0] == files[1] and not taken(tmp_path / "cut") & taken(shop / "a")

    with pytest.raises(KeyboardInterrupt):
        adapt(str(shop / "tiles"), spec, tmp_path / "torn", watch=stop)
    save_adapter(tmp_path / "other", load_adapter(shop / "b" / "adapter"))
    with pytest.raises(RunError, match="the adapters beside have changed since this run began"):
        adapt(str(shop / "tiles"), spec, tmp_path / "torn", resume=True)


def test_what_nothing_can_be_trained_beside_is_named_before_anything_is_written(shop, tiny, tmp_path):
    def refused(error, match, backbone="clip", **adapter):
        fields = {**SMALL, "backbone": {"backbone": str(tiny(backbone))}, "adapter": {**SMALL["adapter"], **adapter}}
        with pytest.raises(error, match=match):
            adapt(str(shop / "tiles"), build(fields), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused(AdapterError, r"lora: a low rank leaves no entries free.*nowhere: .*no such folder",
            beside=[str(shop / "lora"), str(tmp_path / "nowhere")])  # fmt: skip
    refused(AdapterError, "a: this model is another backbone", backbone="siglip", beside=[str(shop / "a")])
    refused(AdapterError, r"a budget of \d+ entries is more than the \d+ of", density=0.99, beside=[str(shop / "a")])
    refused(
        AdapterError, "no unit that fits the budget is free", density=0.6, granularity="50x50", beside=[str(shop / "a")]
    )
    refused(AdapterError, "'struct' crosses every row", granularity="struct", beside=[str(shop / "a")])
    refused(KusabiError, "adapter.beside is for kind sparse_delta, not low_rank",
            kind="low_rank", support_rule="gradient", beside=[str(shop / "a")])  # fmt: skip


def test_adapters_that_do_not_belong_together_are_refused_with_every_mismatch(shop, tiny, tmp_path):
    spec = build({**SMALL, "backbone": {"backbone": str(tiny("siglip")), "fit": "squash"}})
    adapt(str(shop / "tiles"), spec, tmp_path / "siglip")
    with pytest.raises(AdapterError) as refusal:
        compose([shop / "a", tmp_path / "siglip", shop / "b"], tmp_path / "no")
    message = str(refusal.value)
    assert "was made for siglip" in message and "with fit 'squash'" in message and message.count("tiles") >= 2
    for arguments, error, match in (
        ({"out": None}, SpecError, "--out is missing"),
        ({"weights": [1]}, SpecError, "--weights has 1 numbers for 2 adapters"),
        ({"how": "mean"}, SpecError, "--how mean: not known; choose sum, ties, disjoint"),
        ({"measure": ["x"]}, SpecError, "--measure names 1 folders for 2"),
        ({"out": shop}, RunError, "something is there already"),
        ({"weights": [1, -1]}, AdapterError, "class 'dent': the weights"),
        ({"measure": [str(shop / "tiles")] * 2}, KusabiError, "the adapter does not know dent"),
    ):
        with pytest.raises(error, match=match):
            compose([shop / "a", shop / "b"], **{"out": tmp_path / "no", **arguments})
    with pytest.raises(CheckpointError):
        compose([shop / "parts"], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_the_verb_shows_the_card_first_and_writes_nothing_in_a_dry_run(shop, tmp_path):
    runner = CliRunner()
    words = ["compose", str(shop / "a"), str(shop / "b"), "--weights", "1,0.5", "--threads", "1", "--quiet"]
    done = runner.invoke(cli.app, [*words, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and "by chance" in done.stdout and "nothing written" in done.stdout
    assert "  all" in done.stdout and done.stdout.index("by chance") < done.stdout.index("nothing written")
    measure = ["--measure", str(shop / "parts"), "--measure", str(shop / "tiles")]
    done = runner.invoke(cli.app, [*words, *measure, "--out", str(tmp_path / "both")], catch_exceptions=False)
    assert done.exit_code == 0 and "alone" in done.stdout and (tmp_path / "both" / "README.md").exists()
    done = runner.invoke(cli.app, [*words, "--dry-run", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["composed"]["kind"] == "sparse_delta"
    wrong = runner.invoke(cli.app, [*words[:3], "--weights", "1;2", "--dry-run"])
    assert wrong.exit_code == 2


def test_the_composed_classifier_answers_with_the_rows_of_its_sources(shop, tiny, tmp_path):
    compose([shop / "a", shop / "free"], tmp_path / "both", how="disjoint")
    stored = open_adapter(tmp_path / "both", backbone=str(tiny("clip")))
    together, a = classifier(stored.backbone, stored.adapter), load_adapter(shop / "a" / "adapter")
    own = classifier(stored.backbone, a)
    rows = [stored.adapter.card["classes"].index(name) for name in a.card["classes"]]
    assert torch.equal((together.text + together.displacement)[rows], own.text + own.displacement)
