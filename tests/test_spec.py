import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.errors import SpecError
from kusabi.spec import PARTS, AdaptSpec
from kusabi.spec_file import build, overlay, placement_fields, read_spec, write_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SMALL = st.floats(0, 10, exclude_min=True) | st.just(1e-300)
FIELDS = {
    "backbone": {
        "backbone": TEXT,
        "revision": st.none() | TEXT,
        "dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
        "input_size": st.none() | st.integers(14, 2048),
        "fit": st.sampled_from(["pad", "squash", "crop"]),
    },
    "data": {
        "shots": st.integers(1, 100_000),
        "label_column": TEXT,
        "group_column": st.none() | TEXT,
        "skip_unreadable": st.booleans(),
        "templates": st.none() | st.lists(TEXT, max_size=3),
        "names": st.dictionaries(TEXT, TEXT, max_size=3),
        "augment": st.sampled_from(["none", "safe", "strong"]),
        "views": st.integers(1, 256),
    },
    "adapter": {
        "kind": st.just("hybrid"),
        "density": st.floats(0, 1, exclude_min=True),
        "budget": st.none() | st.integers(1, 10**12),
        "support_rule": st.sampled_from(["random", "magnitude", "gradient", "snip"]),
        "granularity": TEXT,
        "allocation": st.sampled_from(["size", "uniform", "energy"]),
        "tower": st.sampled_from(["vision", "text", "both"]),
        "layers": TEXT,
        "beside": st.just(()),
        "projections": st.lists(TEXT, max_size=3),
        "placement": st.none(),
        "head": st.sampled_from(["prototypes", "text"]),
        "blend": st.none() | st.floats(0, 1),
    },
    "low_rank": {
        "rank": st.none() | st.integers(1, 10**9),
        "lora_alpha": st.none() | SMALL,
        "rank_stabilized": st.booleans(),
        "lora_dropout": st.floats(0, 1, exclude_max=True),
        "shrinkage": st.none() | SMALL,
        "shrinkage_last": st.none(),  # a schedule has conditions: below
        "shrinkage_stages": st.just(7),
        "shrinkage_spacing": st.just("linear"),
        "low_rank_share": st.floats(0, 1),
        "warm_up": st.just(64),
    },
    "bottleneck": {
        "where": st.just("both"),
        "form": st.just("sequential"),
        "bottleneck_size": st.none(),
        "activation": st.just("relu"),
        "bottleneck_scale": st.just(1.0),
        "bottleneck_dropout": st.just(0.0),
        "experts": st.just(1),
        "prune_rule": st.just("snip"),
        "prune_scope": st.just("global"),
        "widen": st.just(1),
        "down_init": st.just("normal"),
    },
    "moves": {
        "move_every": st.integers(0, 10**9),
        "move_phase": st.integers(0, 10**9),
        "move_share": st.floats(0, 1),
        "move_first_share": st.none() | st.floats(0, 1),
        "move_schedule": st.sampled_from(["linear", "cosine"]),
        "move_random": st.floats(0, 1),
        "move_weakest": st.sampled_from(["value", "momentum"]),
        "move_window": st.integers(1, 10**9),
        "move_seeding": st.sampled_from(["mean", "unbiased", "zero"]),
        "move_scope": st.sampled_from(["target", "all"]),
        "move_union": st.booleans(),
    },
    "safety": {
        "agreement": SMALL,
        "cross_fit": st.integers(0, 64),
        "average": st.floats(0, 1, exclude_max=True),
        "stop_loss": SMALL,
        "temper": st.booleans(),
        "alpha": st.sampled_from(["prior", "auto"]) | st.floats(0, 1),
        "head_alpha": st.just("auto") | st.floats(0, 1),
    },
    "training": {
        "steps": st.integers(1, 1_000_000),
        "batch_size": st.integers(1, 65_536),
        "learning_rate": st.none() | SMALL,
        "head_learning_rate": SMALL,
        "warmup_ratio": st.floats(0, 1),
        "value_decay": st.floats(0, 1e300),
        "precision": st.sampled_from(["auto", "bfloat16", "float32"]),
        "checkpoint_every": st.integers(1, 10**9),
    },
}
HYBRID = {"adapter": {"kind": "hybrid"}}  # the kind with the most settings
ROSA = {"kind": "hybrid", "support_rule": "warm_up"}
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "schema_version": st.just(1),
        "seed": st.integers(0, 2**63 - 1),
        **{part: st.fixed_dictionaries({}, optional=fields) for part, fields in FIELDS.items()},
    },
).map(lambda fields: build(overlay(HYBRID, fields)))


def test_the_strategies_above_know_every_field():
    assert {part: set(model.model_fields) for part, model in PARTS.items()} == {p: set(f) for p, f in FIELDS.items()}
    assert set(AdaptSpec.model_fields) == {"schema_version", "seed", *PARTS}


@settings(max_examples=100, deadline=None)
@given(SPECS)
def test_a_spec_written_as_toml_reads_back_as_the_same_spec(spec):
    again = build(tomllib.loads(write_toml(spec)))
    assert again == spec and again.digest == spec.digest and write_toml(again) == write_toml(spec)


def test_adapters_beside_survive_the_file_and_are_for_sparse_deltas():
    spec = build({"adapter": {"beside": ["runs/a b", "傷"]}})
    assert build(tomllib.loads(write_toml(spec))) == spec != build({})
    with pytest.raises(SpecError, match=r"adapter\.beside is for kind sparse_delta, not low_rank"):
        build({"adapter": {"kind": "low_rank", "beside": ["a"]}})


def test_hard_texts_survive_the_file(tmp_path):
    hard = 'a "quoted" \\ back\\slash\ttab\nline\r\nend \x00\x07\x7f\x85\u2028 傷 🪵 {} #'
    spec = build({"data": {"templates": [hard], "names": {hard: hard, "": "", "a.b": "c = [1]"}}})
    (tmp_path / "spec.toml").write_bytes(write_toml(spec).encode())
    assert read_spec(tmp_path / "spec.toml") == spec


@pytest.mark.parametrize(
    ("fields", "complaints"),
    [
        (
            {"sede": 1},
            ["unknown key 'sede'", "seed, backbone, data, adapter, low_rank, bottleneck, moves, safety, training"],
        ),
        ({"data": {"shotz": 1}}, ["unknown key 'data.shotz'", "shots, label_column, group_column"]),
        ({"adapter": {"Density": 1, "rank": 4}}, ["'adapter.Density'", "'adapter.rank'", "kind, density, budget"]),
        ({"data": {"shots": 0}, "adapter": {"tower": "sound"}}, ["'data.shots'", "(got 0)", "'adapter.tower'"]),
        ({"training": 5, "x": 1}, ["'training'", "(got 5)", "unknown key 'x'"]),
        ({"data": {"names": {"a": 5}}}, ["'data.names.a'"]),
    ],
)
def test_all_mistakes_are_told_with_their_paths_and_the_known_keys(tmp_path, fields, complaints):
    with pytest.raises(SpecError) as refusal:
        build(fields, "my.toml")
    assert str(refusal.value).startswith("my.toml: ")
    assert all(complaint in str(refusal.value) for complaint in complaints)


@pytest.mark.parametrize(
    ("part", "field", "inside", "outside"),
    [
        ("data", "shots", [1, 100_000], [0, 100_001, 1.5, "many"]),
        ("data", "views", [1, 256], [0, 257]),
        ("data", "templates", [["{}"]], ["{}", [3]]),
        ("backbone", "input_size", [14, 2048], [13, 2049]),
        ("backbone", "fit", ["crop"], ["zoom", ""]),
        ("adapter", "density", [1e-12, 1], [0, -0.1, 1.001, float("nan")]),
        ("adapter", "budget", [1, 10**12], [0, -1]),
        ("adapter", "blend", [0, 1], [-0.01, 1.01, float("nan")]),
        ("adapter", "kind", ["sparse_delta", "low_rank"], ["lora"]),
        ("training", "steps", [1, 1_000_000], [0, 1_000_001]),
        ("training", "learning_rate", [1e-12, 10], [0, 10.1, float("inf"), float("nan")]),
        ("training", "warmup_ratio", [0, 1], [-0.1, 1.1, float("nan")]),
        ("training", "value_decay", [0, 1e9], [-1e-9, float("inf"), float("nan")]),
    ],
)
def test_values_are_taken_up_to_their_bounds_and_refused_beyond(part, field, inside, outside):
    for value in inside:
        build({part: {field: value}})
    for value in outside:
        with pytest.raises(SpecError, match=f"'{part}.{field}"):
            build({part: {field: value}})


def test_a_spec_cannot_be_changed():
    spec = build({})
    for value, field in ((spec, "seed"), (spec.data, "shots"), (spec.adapter, "density")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(value, field, 1)


def test_the_digest_does_not_depend_on_how_the_spec_was_written():
    one = build({"seed": 3, "data": {"names": {"a": "x", "b": "y"}, "shots": 4}})
    other = build({"data": {"shots": 4, "views": 4, "names": {"b": "y", "a": "x"}}, "seed": 3, "training": {}})
    assert one.digest == other.digest and len(one.digest) == 64 and int(one.digest, 16)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_digest_tells_any_two_requests_apart(data):
    base, changes = build(HYBRID), [{"seed": data.draw(st.integers(0, 9))}]
    changes += [{part: {key: data.draw(drawn)}} for part, fields in FIELDS.items() for key, drawn in fields.items()]
    for other in (build(overlay(HYBRID, change)) for change in changes):
        assert (other.digest == base.digest) == (other == base)


def test_flags_are_laid_over_the_file_field_by_field(tmp_path):
    (tmp_path / "spec.toml").write_text('seed = 5\n[data]\nshots = 8\nviews = 2\n[data.names]\na = "x"\n', "utf-8")
    spec = read_spec(tmp_path / "spec.toml", {"data": {"shots": 1, "names": {"b": "y"}}, "adapter": {"budget": 9}})
    assert (spec.seed, spec.data.shots, spec.data.views, spec.adapter.budget) == (5, 1, 2, 9)
    assert spec.data.names == {"b": "y"}
    assert read_spec(tmp_path / "spec.toml") == read_spec(tmp_path / "spec.toml", {})


@settings(max_examples=50, deadline=None)
@given(SPECS)
def test_laying_nothing_or_everything_over_is_plain(spec):
    fields = spec.model_dump(mode="json")
    assert build(overlay(fields, {})) == build(overlay({}, fields)) == build(overlay(fields, fields)) == spec
    changed = overlay(fields, {"data": {"shots": 77}, "seed": 1})
    assert fields == spec.model_dump(mode="json"), "the arguments stay as they were"
    assert changed["data"] == {**fields["data"], "shots": 77} and changed["adapter"] == fields["adapter"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"seed = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"seed = " + b"9" * 5000, "not valid TOML"),
        (b"seed = " + b"[" * 5000, "not valid TOML"),
        (None, "cannot be read"),
    ],
    ids=["cut off", "not UTF-8", "a long number", "nested deeply", "none"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, complaint):
    path = tmp_path / "my spec.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as refusal:
        read_spec(path)
    assert str(path) in str(refusal.value) and complaint in str(refusal.value)


def test_a_byte_order_mark_before_the_text_is_no_part_of_it(tmp_path):
    (tmp_path / "spec.toml").write_text("seed = 5\n", "utf-8-sig")
    assert read_spec(tmp_path / "spec.toml").seed == 5


def test_flags_are_named_as_they_were_typed_and_each_once():
    fields = {"data": {"shots": 0}, "safety": {"alpha": "foo"}}
    with pytest.raises(SpecError) as refused:
        build(fields, "flags")
    said = str(refused.value)
    assert "'--shots': " in said and said.count("'--alpha'") == 1 and "; or: " in said and "literal" not in said
    with pytest.raises(SpecError, match=r"'data\.shots': "):
        build(fields, "spec.toml")


def test_a_placement_that_cannot_be_looked_up_is_named():
    with pytest.raises(SpecError, match="--placement foo: no such file; give pieces TOWER:LAYERS:PROJECTIONS"):
        placement_fields("foo")
    with pytest.raises(SpecError, match="x: File name too long; give a shorter name"):
        placement_fields("x" * 300)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"low_rank": {"rank": 4}}, "low_rank.rank is for kind low_rank or hybrid, not sparse_delta"),
        ({"bottleneck": {"widen": 2}, "adapter": {"kind": "hybrid"}}, "bottleneck.widen is for kind bottleneck"),
        ({"moves": {"move_every": 5}, "adapter": {"kind": "low_rank"}}, "moves.move_every is for kind sparse_delta"),
        ({"adapter": {"kind": "hybrid", "support_rule": "change"}}, "support_rule 'change' is for kind sparse_delta"),
        ({"adapter": {"support_rule": "warm_up"}}, "support_rule 'warm_up' is for kind hybrid, not sparse_delta"),
        ({**HYBRID, "low_rank": {"warm_up": 3}}, "low_rank.warm_up is for adapter.support_rule 'warm_up'"),
        ({"adapter": {**ROSA, "granularity": "row"}}, "'warm_up' wants granularity 'entry' and allocation 'size'"),
        ({"adapter": {**ROSA, "allocation": "energy"}}, "'warm_up' wants granularity 'entry' and allocation 'size'"),
        ({**HYBRID, "low_rank": {"shrinkage_last": 3.0}}, "shrinkage_last 3 must be above low_rank.shrinkage"),
        ({**HYBRID, "low_rank": {"shrinkage": 3, "shrinkage_last": 3}}, "must be above low_rank.shrinkage"),
        ({**HYBRID, "low_rank": {"shrinkage": 3, "shrinkage_stages": 5}}, "need low_rank.shrinkage_last"),
        (
            {**HYBRID, "low_rank": {"shrinkage": 0, "shrinkage_last": 3, "shrinkage_spacing": "geometric"}},
            "geometric must start above 0",
        ),
    ],
)  # fmt: skip
def test_a_setting_of_another_kind_is_refused(fields, complaint):
    with pytest.raises(SpecError, match=complaint):
        build(fields)


def test_a_warm_up_and_a_schedule_written_as_toml_read_back():
    schedule = {"shrinkage": 0.5, "shrinkage_last": 8, "shrinkage_stages": 4, "shrinkage_spacing": "geometric"}
    spec = build({"adapter": ROSA, "low_rank": {"warm_up": 9, **schedule}})
    assert build(tomllib.loads(write_toml(spec))) == spec and spec.low_rank.warm_up == 9


def test_a_bottleneck_written_as_toml_reads_back():
    spec = build({"adapter": {"kind": "bottleneck"}, "bottleneck": {"where": "mlp", "widen": 3, "experts": 4}})
    assert build(tomllib.loads(write_toml(spec))) == spec
