"""What is loaded is what was stored; whatever else a folder holds is refused, and costs no memory."""

import copy
import json
import math
import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

from kusabi.adapters import checkpoint
from kusabi.adapters.checkpoint import CARD, WEIGHTS, load_adapter, rounded, save_adapter
from kusabi.errors import CheckpointError


def both_files(folder):
    return (folder / WEIGHTS).read_bytes(), (folder / CARD).read_bytes()


@pytest.fixture(autouse=True)
def frugal():
    """No card, however hostile, makes loading take memory beyond the size of its files."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "more than 400 MB were taken"


def test_saving_loading_and_saving_again_is_the_identity(subject, place, kind, stored_adapter, tmp_path):
    model = subject(*place)
    adapter = stored_adapter(model, model.parts(kind))
    save_adapter(tmp_path / "first", adapter)
    loaded, short = load_adapter(tmp_path / "first"), rounded(adapter)
    save_adapter(tmp_path / "second", loaded)
    assert both_files(tmp_path / "first") == both_files(tmp_path / "second")
    assert [type(part) for part in loaded.parts] == [type(part) for part in adapter.parts]
    for found, kept, given_ in zip(loaded.parts, short.parts, adapter.parts, strict=True):
        assert found.names == given_.names and found.settings() == given_.settings() and found.sizes == given_.sizes
        assert torch.equal(found.indices, given_.indices) and found.indices.dtype == torch.int32
        assert torch.equal(found.values, given_.values.bfloat16().float()) and torch.equal(found.values, kept.values)
    assert torch.equal(model.frozen_answers(*loaded.parts), model.frozen_answers(*short.parts))
    assert not torch.equal(model.frozen_answers(*loaded.parts), model.frozen_answers())


def test_random_supports_are_stored_as_their_seed_alone(subject, stored_adapter, tmp_path):
    model = subject()
    for kind in ("sparse delta of entries", "hybrid"):
        for seed in (3, 4):  # parts are drawn from 3
            adapter = stored_adapter(model, model.parts(kind, seed=3), support_rule="random", seed=seed)
            save_adapter(tmp_path, adapter)
            assert ("indices" in load_tensors((tmp_path / WEIGHTS).read_bytes())) == (seed == 4)
            for found, wanted in zip(load_adapter(tmp_path).parts, adapter.parts, strict=True):
                assert torch.equal(found.indices, wanted.indices)


@pytest.fixture(scope="session")
def spoil(subject, stored_adapter, tmp_path_factory):
    """Kind, change of the card, change of the tensors -> a folder, sealed anew, so that only its content counts."""
    stored = {}

    def made(kind, change_card=lambda card: None, change_tensors=lambda tensors: None):
        if kind not in stored:
            model = subject()
            stored[kind] = tmp_path_factory.mktemp("stored")
            save_adapter(stored[kind], stored_adapter(model, model.parts(kind)))
        weights, text = both_files(stored[kind])
        card, tensors = json.loads(text), load_tensors(weights)
        change_card(card)
        change_tensors(tensors)
        weights, folder = dump_tensors(tensors), tmp_path_factory.mktemp("spoiled")
        (folder / WEIGHTS).write_bytes(weights)
        card["digest"] = checkpoint._digest(weights, card)
        (folder / CARD).write_text(json.dumps(card), "utf-8")
        return folder

    return made


def test_all_wrong_tensors_are_listed_at_once(spoil, kind):
    def worse(tensors):
        tensors["values"][1] = torch.nan
        tensors["backdoor"] = torch.zeros(1)
        tensors["prototypes.offset"] = torch.zeros(3)
        tensors["prototypes.displacement"][0, 0] = torch.inf
        del tensors["indices"], tensors["prototypes.log_gain"]

    with pytest.raises(CheckpointError) as refusal:
        load_adapter(spoil(kind, change_tensors=worse))
    for complaint in (
        "'values' holds values that are not finite", "'backdoor' does not belong here", "'indices' is missing",
        "'prototypes.offset' is torch.float32 (3,), expected torch.float32 (2,)", "'prototypes.log_gain' is missing",
        "'prototypes.displacement' holds values that are not finite",
    ):  # fmt: skip
        assert complaint in str(refusal.value)


SHAPES = [lambda v: v[:-1], lambda v: torch.cat([v, v[:1]]), lambda v: v.float(), lambda v: v[None]]


@pytest.mark.parametrize("wrong", SHAPES, ids=["short", "long", "wide", "deep"])
def test_values_of_another_shape_or_type_are_refused(spoil, kind, wrong):
    with pytest.raises(CheckpointError, match=r"'values' is torch\.\w+ \([0-9, ]+\), expected torch\.bfloat16"):
        load_adapter(spoil(kind, change_tensors=lambda tensors: tensors.update(values=wrong(tensors["values"]))))


@pytest.mark.parametrize("file", [WEIGHTS, CARD])
def test_a_file_that_was_cut_off_is_refused_wherever(spoil, kind, file):
    folder = spoil(kind)
    whole = (folder / file).read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9, 1.0):
        (folder / file).write_bytes(whole[: min(round(share * len(whole)), len(whole) - 1)])
        with pytest.raises(CheckpointError, match=str(folder)):
            load_adapter(folder)
    (folder / file).write_bytes(whole)
    load_adapter(folder)


@pytest.mark.parametrize("which", [0, 1, -1])
def test_tensors_of_other_names_do_not_make_up_a_part(spoil, kind, which):
    if "sparse" in kind:
        return  # any weights make a sparse delta: whether they fit is the model's to say

    def change(card):
        own = [target for target in card["targets"] if target.get("part", 0) == len(card["parts"]) - 1]
        own[which]["tensor"] += "_"

    with pytest.raises(
        CheckpointError, match=r"low-rank factors do not fit|a bottleneck's entries do not fit|cannot be"
    ):
        load_adapter(spoil(kind, change))


DEEP = json.loads("[" * 300 + "]" * 300)
HOSTILE = [
    None, True, -1, 0, 7, 1.5, -0.5, 2**40, -(2**70), 10**400, math.nan, math.inf, 1e308, "", "7", "relu", [], [2], {},
    {"w": 1}, {"": {}}, DEEP,
]  # fmt: skip


def settings_of(card):
    """Path of every setting of every part, the first and the last ones inside tables included."""
    for number, part in enumerate(card["parts"]):
        for key, value in part.items():
            yield number, key
            if isinstance(value, dict):
                yield from ((number, key, name) for name in (min(value), max(value)))


def at(card, path):
    found = card["parts"]
    for key in path:
        found = found[key]
    return found


def alike(value, other):
    """Whether a setting may be another of the same type: what it means is then the model's to say."""
    number = lambda one: isinstance(one, int | float) and not isinstance(one, bool)  # noqa: E731
    if number(value) or value is None:  # shrinkage may be there or not
        return other is None or (number(other) and (type(other) is type(value) or abs(other) <= 1e308))
    return type(value) is type(other)


def test_every_hostile_setting_is_refused_or_means_what_it_says(spoil, kind):
    card = json.loads((spoil(kind) / CARD).read_text("utf-8"))
    refused = accepted = 0
    for path in [*settings_of(card), *((number, "unknown") for number in range(len(card["parts"])))]:
        for value in HOSTILE:

            def change(card, path=path, value=value):
                at(card, path[:-1])[path[-1]] = value

            folder = spoil(kind, change)
            try:
                loaded = load_adapter(folder)
            except CheckpointError as refusal:
                assert str(folder) in str(refusal)
                refused += 1
                continue
            accepted += 1
            assert path[-1] != "unknown", value
            assert alike(at(card, path), value), (path, value)
            found = {"kind": loaded.parts[path[0]].kind, **loaded.parts[path[0]].settings()}
            for key in path[1:]:
                found = found[key]
            assert found == value, (path, value)
            save_adapter(folder, loaded)
    assert refused > 2 * accepted


SPOILED = {
    "sparse_delta": {"colour": 1},
    "low_rank": {"dropout": -1, "rank_stabilized": 3, "shrinkage": "x", "alphas": 7},
    "bottleneck": {"dropout": -1, "experts": 1000, "size": 0, "widths": 7},
}


def test_all_hostile_settings_of_all_parts_are_listed_at_once(spoil, kind):
    def change(card):
        for part in card["parts"]:
            part.update(SPOILED[part["kind"]])

    folder = spoil(kind, change)
    with pytest.raises(CheckpointError) as refusal:
        load_adapter(folder)
    kinds = [part["kind"] for part in json.loads((folder / CARD).read_text("utf-8"))["parts"]]
    assert len(kinds) == (2 if kind == "hybrid" else 1)
    assert all(key in str(refusal.value) for one in kinds for key in SPOILED[one])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(found, path=()):
    if path:
        yield path
    if isinstance(found, dict | list):
        for key in found if isinstance(found, dict) else range(len(found)):
            yield from places(found[key], (*path, key))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_card_with_anything_anywhere_is_refused_or_loads_whole(spoil, kind, data):
    card = json.loads((spoil(kind) / CARD).read_text("utf-8"))
    known = sorted(places(card), key=str)
    path = data.draw(st.sampled_from(known))
    value, gone = data.draw(JSON), data.draw(st.booleans())

    def change(card):
        for key in path[:-1]:
            card = card[key]
        if gone:
            del card[path[-1]]
        else:
            card[path[-1]] = copy.deepcopy(value)

    folder = spoil(kind, change)
    try:
        loaded = load_adapter(folder)
    except CheckpointError as refusal:
        assert str(folder) in str(refusal)
    else:
        assert all(bool(part.values.isfinite().all()) for part in loaded.parts)


@pytest.mark.parametrize("depth", [400, 900, 2000, 20_000, 150_000])
def test_a_card_however_deep_is_refused_or_loads(spoil, depth):
    folder = spoil("hybrid")
    text = (folder / CARD).read_text("utf-8").rstrip()
    for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        (folder / CARD).write_text(text[:-1] + f', "note": {deep}}}', "utf-8")
        with pytest.raises(CheckpointError):
            load_adapter(folder)


@pytest.mark.gpu
def test_on_a_gpu_what_is_stored_is_the_same_and_answers_alike(subject, kind, stored_adapter, tmp_path):
    here, there = subject(), subject("clip", "float32", "cuda")
    parts = there.parts(kind)
    save_adapter(tmp_path / "here", stored_adapter(here, here.parts(kind)))
    save_adapter(tmp_path / "there", stored_adapter(there, parts))
    assert both_files(tmp_path / "here") == both_files(tmp_path / "there")
    loaded = [part.cuda() for part in load_adapter(tmp_path / "there").parts]
    torch.testing.assert_close(
        there.frozen_answers(*loaded).cpu(),
        here.frozen_answers(*load_adapter(tmp_path / "here").parts),
        rtol=0,
        atol=1e-4,
    )
