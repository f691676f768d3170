"""Classes without a labelled picture, beside those of an adapter trained on a tiny model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.conftest import KINDS, tile

from kusabi.adapters.attach import attached
from kusabi.backbones.preprocessing import pixels
from kusabi.data.picture import open_picture
from kusabi.errors import DataError
from kusabi.recipes.adapt import adapt
from kusabi.recipes.new_classes import SHARE, joined, weakened
from kusabi.recipes.stored_adapter import open_adapter, predict
from kusabi.spec_file import build
from kusabi.training.texts import class_texts


def softmax(logits):
    return torch.tensor(logits).softmax(1).numpy()


LOGITS = arrays(np.float64, (3, 7), elements=st.floats(-50, 50))


@given(LOGITS, st.integers(1, 7))
def test_a_method_that_answers_by_texts_gets_its_own_softmax_over_all_classes(texts, trained):
    assert np.allclose(joined(softmax(texts[:, :trained]), texts), softmax(texts), rtol=1e-12, atol=1e-300)


@given(LOGITS, LOGITS)
def test_new_classes_keep_the_texts_probabilities_whatever_a_method_says_among_its_own(texts, other):
    own = softmax(other[:, :4])
    whole = joined(own, texts)
    assert np.allclose(whole.sum(1), 1) and np.allclose(whole[:, 4:], softmax(texts)[:, 4:])
    assert (whole[:, :4].argmax(1) == own.argmax(1)).all() or np.ptp(whole[:, :4]) < 1e-12


def test_without_new_classes_nothing_changes():
    own = softmax(np.random.default_rng(0).normal(size=(5, 4)))
    assert joined(own, np.zeros((5, 4))) is own


ADAPTERS = {
    "vision": {},
    "both": {"tower": "both"},
    "texts alone": {"head": "text"},
    "low_rank": {"kind": "low_rank", "budget": 2000},
    "bottleneck": {"kind": "bottleneck", "budget": 200},
}


@pytest.fixture(scope="module", params=ADAPTERS)
def run(request, tiny, tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("new")
    for split, count in (("train", 3), ("test", 4)):
        for kind, label in zip(KINDS, ("cat", "dog", "plate"), strict=True):
            (root / "parts" / split / label).mkdir(parents=True)
            for i in range(count):
                tile(kind, f"{split}/{i}").save(root / "parts" / split / label / f"{i}.png")
    adapter = {"support_rule": "random", "layers": "all", **ADAPTERS[request.param]}
    fields = {"data": {"shots": 2, "views": 2}, "training": {"steps": 3, "learning_rate": 3e-2}, "adapter": adapter}
    adapt(str(root / "parts"), build({**fields, "backbone": {"backbone": str(tiny("clip"))}}), root / "run")
    return root


def shown(run):
    return sorted((run / "parts" / "test").rglob("*.png"))


def test_new_classes_are_told_by_their_texts_on_half_the_values_and_trained_ones_share_the_rest(run):
    before, found = predict(run / "run", shown(run)), predict(run / "run", shown(run), also=["red", "dent"])
    stored = open_adapter(run / "run")
    pictures = pixels([open_picture(path) for path in shown(run)], stored.backbone.preprocessing)
    with torch.no_grad(), attached(stored.backbone.module, *weakened(stored.adapter)):
        prompts = [*stored.adapter.card["prompts"], ("red", "a photo of a red"), ("dent", "a photo of a dent")]
        texts = class_texts(stored.backbone, prompts)
        wanted = (stored.backbone.scale * stored.backbone.embed_images(pictures) @ texts.T).double().softmax(1)
    for old, new, row in zip(before, found, wanted.tolist(), strict=True):
        assert list(new["scores"]) == ["cat", "dog", "plate", "red", "dent"]
        assert list(new["scores"].values())[3:] == pytest.approx(row[3:], rel=1e-4)
        trained = sum(row[:3])
        assert [new["scores"][name] for name in old["scores"]] == pytest.approx(
            [p * trained for p in old["scores"].values()], rel=1e-4
        )
        assert new["label"] == max(new["scores"], key=new["scores"].get)


def test_weakening_copies_and_leaves_the_adapter_alone(run):
    adapter = open_adapter(run / "run").adapter
    if not adapter.head:
        assert weakened(adapter) is adapter.parts, "values that learned against the texts are left whole"
        return
    held = [part.values.clone() for part in adapter.parts]
    for part, copy, values in zip(adapter.parts, weakened(adapter), held, strict=True):
        assert torch.equal(part.values, values) and not torch.equal(copy.values, values)
        changed = copy.values != values
        assert torch.allclose(copy.values[changed], SHARE * values[changed])


@pytest.mark.parametrize(
    ("also", "named"),
    [
        (["dog"], "'dog': the adapter has"),
        (["red", "red"], "'red': given more"),
        (["  "], "no words"),
        (["a_b", "a b"], "'a_b', 'a b': given more"),
        ([" Dog"], "' Dog': the adapter has these"),
    ],
)
def test_what_is_no_new_class_is_refused(run, also, named):
    with pytest.raises(DataError, match=named):
        predict(run / "run", shown(run)[:1], also=also)
