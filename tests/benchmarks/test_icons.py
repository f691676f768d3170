import string

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.icons import LEARNED, dealt

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=4)


@given(st.dictionaries(NAMES, st.sampled_from("abcdef"), max_size=90), st.randoms())
def test_groups_stay_whole_and_at_most_half_are_learned_from_in_any_order(group_of, random):
    icons = [(group, name) for name, group in group_of.items()]
    learned, judged = dealt(icons)
    assert sorted(learned + judged) == sorted(group_of)
    assert len(learned) <= min(LEARNED, len(icons) // 2)
    assert not {group_of[name] for name in learned} & {group_of[name] for name in judged}
    random.shuffle(icons)
    assert dealt(icons) == (learned, judged)


def test_single_icons_are_dealt_to_both_sides():
    learned, judged = dealt([(str(n), str(n)) for n in range(100)])
    assert (len(learned), len(judged)) == (LEARNED, 100 - LEARNED)
