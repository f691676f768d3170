import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.adapters.compose_heads import ClassHead, compose_heads
from kusabi.errors import AdapterError


def head(classes, seed=0, prompts=None, text=False):
    random = torch.Generator().manual_seed(seed)
    shapes = {"displacement": (len(classes), 3), "offset": (len(classes),), "log_gain": ()}
    tensors = {} if text else {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return ClassHead(tuple(classes), tuple(prompts or ((name, f"a {name}") for name in classes)), tensors)


def bits(found):
    return found.classes, found.prompts, {k: v.view(torch.int32).tolist() for k, v in found.tensors.items()}


def logits(one, text, images):
    # The classifier as a server without Kusabi computes it, over the class's own text.
    directions = torch.stack([text[name] for name in one.classes]) + one.tensors["displacement"]
    return one.tensors["log_gain"].exp() * (images @ directions.T + one.tensors["offset"])


def test_classifiers_of_the_same_classes_are_their_weighted_mean():
    a, b = head("xy", 1), head("xy", 2)
    found = compose_heads([a, b], [3, 1])
    assert found.classes == ("x", "y") and found.prompts == a.prompts
    for name in a.tensors:
        assert torch.allclose(found.tensors[name], 0.75 * a.tensors[name] + 0.25 * b.tensors[name])


def test_different_classes_keep_their_rows_bitwise_at_one_gain():
    a, b = head("xz", 1), head("wy", 2)
    found = compose_heads([a, b], [1, 3])
    assert found.classes == ("w", "x", "y", "z")
    for row, (source, at) in enumerate([(b, 0), (a, 0), (b, 1), (a, 1)]):
        assert torch.equal(found.tensors["displacement"][row], source.tensors["displacement"][at])
        assert torch.equal(found.tensors["offset"][row], source.tensors["offset"][at])
        assert found.prompts[row] == source.prompts[at]
    mean = 0.25 * a.tensors["log_gain"] + 0.75 * b.tensors["log_gain"]
    assert torch.allclose(found.tensors["log_gain"], mean)
    text = {name: torch.randn(3, generator=torch.Generator().manual_seed(ord(name))) for name in "wxyz"}
    images = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    together = logits(found, text, images)
    for source, columns in ((a, [1, 3]), (b, [0, 2])):
        alone = logits(source, text, images)
        assert torch.equal(alone.argmax(1), together[:, columns].argmax(1)), "answers within a task stay"
        ratio = (mean - source.tensors["log_gain"]).exp()
        assert torch.allclose(together[:, columns], ratio * alone, rtol=1e-4, atol=1e-5), "on one scale"


def test_a_class_known_to_some_is_the_mean_of_those_that_know_it():
    a, b, c = head("xy", 1), head("yz", 2), head("z", 3)
    found = compose_heads([a, b, c], [1, 1, 2])
    rows = found.tensors["offset"]
    assert rows[0] == a.tensors["offset"][0]
    assert torch.isclose(rows[1], (a.tensors["offset"][1] + b.tensors["offset"][0]) / 2)
    assert torch.isclose(rows[2], (b.tensors["offset"][1] + 2 * c.tensors["offset"][0]) / 3)


def test_a_text_classifier_counts_as_zeros_and_two_of_them_stay_one():
    a, text = head("xy", 1), head("xy", text=True)
    found = compose_heads([a, text], [1, 1])
    assert all(torch.allclose(found.tensors[name], a.tensors[name] / 2) for name in a.tensors)
    assert compose_heads([text, head("yz", text=True)], [1, 1]).tensors == {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["xy", "yx", "yz", "w", "wxyz"]), st.floats(0.1, 3)), min_size=1, max_size=4))
def test_the_order_of_the_classifiers_never_matters_and_one_alone_comes_back_bitwise(case):
    pairs = [(head(classes, seed), weight) for seed, (classes, weight) in enumerate(case)]
    orders = (pairs, pairs[::-1], pairs[1:] + pairs[:1])
    one, two, three = (bits(compose_heads([h for h, _ in o], [w for _, w in o])) for o in orders)
    assert one == two == three
    assert bits(compose_heads([pairs[0][0]], [pairs[0][1]])) == bits(pairs[0][0])


def test_terms_that_swallow_each_other_add_up_alike_in_every_order():
    heads = [
        ClassHead(("x",), (("x",),), {"displacement": torch.tensor([[v]]), "offset": torch.tensor([v]),
                                      "log_gain": torch.tensor(v)})
        for v in (1e16, 1.0, -1e16, 3.0)
    ]  # fmt: skip
    found = {str(bits(compose_heads(heads[i:] + heads[:i], [1] * 4))) for i in range(4)}
    assert len(found | {str(bits(compose_heads(heads[::-1], [1] * 4)))}) == 1


def test_classes_of_one_name_and_two_meanings_and_weights_without_a_mean_are_all_named():
    a, b = head("xyz"), head("xy", prompts=[("x", "a x"), ("why",)])
    with pytest.raises(AdapterError) as refusal:
        compose_heads([a, b], [-1, 1])
    message = str(refusal.value)
    assert "class 'y' is known by different prompts: ('why',) / ('y', 'a y')" in message
    assert "class 'x': the weights" in message and "class 'z': the weights" in message and "in all" in message
    with pytest.raises(AdapterError) as refusal:
        compose_heads([a, head("w")], [-1, 2])
    assert "class 'x'" in str(refusal.value) and "class 'w'" not in str(refusal.value)
