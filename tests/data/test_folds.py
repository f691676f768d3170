from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.data.dataset import Example
from kusabi.data.folds import deal, group_of


def labels(examples):
    return Counter(example.label for example in examples)


@st.composite
def grouped(draw):
    """Examples of up to 4 classes in up to 9 groups, many of them of several classes; each class in two or more."""
    classes, groups = draw(st.integers(2, 4)), draw(st.integers(2, 9))
    pairs = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, groups - 1)), min_size=1, max_size=40))
    for label in range(classes):
        pairs += [(label, group) for group in draw(st.permutations(range(groups)))[:2]]
    return [Example(f"{i}.png", label, f"g{group}", f"d{i}") for i, (label, group) in enumerate(pairs)]


@settings(max_examples=200, deadline=None)
@given(grouped(), st.integers(2, 5))
def test_folds_share_no_group_and_leave_something_of_every_class(examples, count):
    folds = deal(examples, count)
    assert sorted(e.file for fold in folds for e in fold) == sorted(e.file for e in examples)
    homes = [{group_of(example) for example in fold} for fold in folds]
    assert sum(map(len, homes)) == len(set().union(*homes))
    assert len(folds) >= 2 and all(folds)
    for fold in folds:
        assert set(labels(examples) - labels(fold)) == set(labels(examples))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=2, max_size=4), st.integers(2, 5))
def test_without_groups_each_class_is_spread_evenly(sizes, count):
    examples = [Example(f"{c}/{i}", c, None, f"{c} {i}") for c, size in enumerate(sizes) for i in range(size)]
    folds = deal(examples, count)
    assert len(folds) <= count
    for label in range(len(sizes)):
        shares = [labels(fold)[label] for fold in folds]
        assert max(shares) - min(shares) <= 1
    totals = [len(fold) for fold in folds]
    assert max(totals) - min(totals) <= len(sizes)


def test_three_lots_in_a_ring_need_three_folds():
    # Each class in two lots, each lot of two classes: in two folds one class would always lie in one alone.
    pairs = [(0, "x"), (0, "y"), (1, "y"), (1, "z"), (2, "z"), (2, "x")]
    examples = [Example(f"{i}", label, group, f"{i}") for i, (label, group) in enumerate(pairs)]
    assert len(deal(examples, 2)) == 3
