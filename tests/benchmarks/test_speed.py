import itertools
import json

import pytest
import torch

from benchmarks.speed import __main__ as program
from benchmarks.speed import adaptation, embedded, floors, loading, many, memory_case, steps, swap
from benchmarks.speed.bounds import BOUNDS, Bound
from benchmarks.speed.clock import alternated
from benchmarks.speed.conditions import SHOTS, VIEWS, Conditions
from benchmarks.speed.ours import Adaptation, Updates
from benchmarks.speed.record import Record, spread
from benchmarks.speed.tables import page
from kusabi.training.views import BLOCK

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def conditions(tmp_path_factory):
    return Conditions("tiny", quick=True, cache=tmp_path_factory.mktemp("speed"), batch=4)


def test_a_bound_judges_from_its_own_side():
    faster, share = Bound("", 2.0, 3.0, "times faster"), Bound("", 1.0, 0.9, "share")
    assert [faster.reached(value) for value in (1.9, 2.0, 3.0)] == ["missed", "must", "goal"]
    assert [share.reached(value) for value in (1.1, 1.0, 0.9)] == ["missed", "must", "goal"]


def test_a_goal_is_never_easier_than_its_must():
    for bound in BOUNDS.values():
        assert bound.goal >= bound.must if bound.unit == "times faster" else bound.goal <= bound.must


def test_sides_take_turns_and_warm_rounds_do_not_count():
    order = []
    found = alternated({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "cpu", repeats=3, warm=2)
    assert order == ["a", "b"] * 5 and {side.count for side in found.values()} == {3}


def test_the_median_and_range_are_those_of_the_numbers():
    found = spread([3.0, 1.0, 10.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.5, 1.0, 10.0, 4)


def test_a_whole_adaptation_is_the_sum_of_its_parts():
    updates = Updates(7.0, spread([2.0]), {}, 0.0)
    whole = Adaptation(once=1.0, block=spread([3.0]), blocks=10, birth=4.0, closing=5.0, updates=updates)
    assert whole.total(100) == 1 + 30 + 4 + 200 + 5


def test_both_sides_train_the_same_linear_maps_with_as_many_numbers(conditions):
    for record in steps.equal_placement(conditions, kinds=("step_entries",)):
        assert record.facts["trained"] == record.facts["peer trains"]
        assert record.value == pytest.approx(record.ours["median"] / record.peer["median"])


def test_floors_are_operations_at_the_rate_of_a_large_product(conditions, monkeypatch):
    monkeypatch.setattr(embedded, "STEPS", 4)
    monkeypatch.setattr(floors, "SHOTS", 2)
    found = {record.case: record for record in floors.floors(conditions)}
    frozen, training = found["frozen layers"], found["training"]
    for record in (frozen, training):
        assert record.facts["floor"] == pytest.approx(record.facts["operations"] / record.facts["rate"])
        assert record.value is None or record.value == pytest.approx(record.ours["seconds"] / record.facts["floor"])
    # 80 views of 37 tokens through 8 layers; 4 updates of 16 views through 4, there and back.
    least = 2 * 12 * 384**2 * 37
    assert 80 * 8 * least <= frozen.facts["operations"] <= 1.2 * 80 * 8 * least
    assert 4 * 16 * 4 * least <= training.facts["operations"] <= 2.2 * 4 * 16 * 4 * least


def test_an_adaptation_to_fewer_pictures_than_are_measured_shows_each_of_them_once(conditions):
    assert conditions.pictures > SHOTS
    spec = adaptation.spec_of("last-1", steps=2, batch=4)
    found = adaptation.adaptation(conditions.load(), 1, spec, conditions, {})
    assert found.blocks == -(-SHOTS * VIEWS // BLOCK) and found.total(2) > found.total(1)


def test_adaptations_say_how_they_compare_at_other_numbers_of_updates(conditions):
    found = {record.measure: record for record in adaptation.ten_classes(conditions)}
    assert set(found) == {"adaptation_same_layers", "adaptation_clip_lora_10"}
    for record in found.values():
        assert record.value == record.peer["total"] / record.ours["total"]
        assert record.facts["steps"] == 20 * 160 // 4 and record.ours["blocks"] == 40


def test_without_units_for_bf16_nothing_is_measured(conditions, monkeypatch):
    monkeypatch.setattr(adaptation, "fast_bf16", lambda device: False)
    (record,) = adaptation.automatic(conditions)
    assert record.value is None and record.note == "no bf16 units"


def test_swaps_loads_and_bytes_are_told_with_both_sides(conditions):
    for record in (*swap.swap(conditions), *loading.loading(conditions), *loading.stored(conditions)):
        assert record.value is not None and record.value > 0 and record.ours and record.peer
        json.dumps(record.to_json())


def test_all_ways_of_running_many_adapters_compute_the_same(monkeypatch, conditions):
    backbone = Conditions("mini", quick=True, cache=conditions.cache, input_size=84).load()
    upper = many.Upper(backbone)
    states = torch.randn(2, 3, 37, 384, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ways = many.sides(upper, 2)
    assert set(ways) == {"in turn", "stacked", "shared"}
    outputs = {name: way(states) for name, way in ways.items()}
    gradients = {name: torch.autograd.grad(of[:, :, 0].sum(), states)[0] for name, of in outputs.items()}
    for found in (outputs, gradients):
        for name in ("stacked", "shared"):
            torch.testing.assert_close(found[name], found["in turn"], rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(many, "AT_ONCE", (2,))
    (record,) = many.many(Conditions("tiny", quick=True, cache=conditions.cache, batch=2))
    assert record.value == pytest.approx(record.peer["median"] / record.ours["median"])


def test_a_peak_of_memory_counts_what_was_held_at_once():
    def train():
        kept = torch.empty(1 << 20, dtype=torch.uint8)
        for _ in range(3):
            torch.empty(1 << 21, dtype=torch.uint8)
        del kept

    assert memory_case._peak(train, "cpu") == pytest.approx(3 << 20, rel=0.01)


def test_a_quick_trial_is_no_result(capsys):
    with pytest.raises(SystemExit):
        program.arguments(["--quick"])
    assert "another --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.arguments(["--measures", "swap,flight"])
    assert "flight" in capsys.readouterr().err


def test_measures_are_written_one_by_one_and_others_are_kept(tmp_path, monkeypatch):
    numbers = itertools.count(10)
    measured = {"swap": lambda _: [Record("swap", "tiny", "all", float(next(numbers)))],
                "memory": lambda _: [Record("memory_lora", "tiny", "all", 2.0)]}  # fmt: skip
    monkeypatch.setattr(program, "MEASURES", measured)
    out = tmp_path / "speed.json"
    program.main(["--quick", "--model", "tiny", "--out", str(out)])
    program.main(["--quick", "--model", "tiny", "--measures", "swap", "--out", str(out)])
    found = json.loads(out.read_text())["measures"]
    assert found["swap"]["records"][0]["value"] == 11 and found["memory"]["records"][0]["value"] == 2
    text = out.with_suffix(".md").read_text()
    assert "| 20 × | 50 × | 11 × | missed |" in text and "| 1.00 | 0.90 | 2.00 | missed |" in text
    assert "not measured" in text and "A quick trial" in text


def test_the_table_shows_every_bound():
    text = page({"measures": {}})
    assert all(bound.title in text for bound in BOUNDS.values())


def test_whole_adaptations_stand_beside_one_that_was_run():
    run = {"measure": "adaptation_confirmed", "model": "m", "case": "2 classes", "value": 1.1, "peer": {}, "facts": {}}
    facts = {"python": "3", "torch": "2", "transformers": "5", "processor": "p", "cores": 2, "bf16_units": []}
    record = {**run, "ours": {"whole": 33.0, "parts": 30.0}, "note": ""}
    results = {"measures": {"confirmed": {"quick": False, "environment": facts, "records": [record]}}}
    assert "(m, 2 classes) took 33.0 s, its parts 30.0 s" in page(results)
