import json
import string

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.icons import HUGEICONS, LEARNED, dealt, hugeicons_families

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=4)


@given(st.dictionaries(NAMES, st.sampled_from("abcdef"), max_size=90), st.randoms())
def test_groups_stay_whole_and_at_most_half_are_learned_from_in_any_order(group_of, random):
    icons = [(group, "set", name) for name, group in group_of.items()]
    learned, judged = dealt(icons)
    assert sorted(learned + judged) == sorted(("set", name) for name in group_of)
    assert len(learned) <= min(LEARNED, len(icons) // 2)
    assert not {group_of[name] for _, name in learned} & {group_of[name] for _, name in judged}
    random.shuffle(icons)
    assert dealt(icons) == (learned, judged)


def test_single_icons_are_dealt_to_both_sides():
    learned, judged = dealt([(str(n), "set", str(n)) for n in range(100)])
    assert (len(learned), len(judged)) == (LEARNED, 100 - LEARNED)


def test_icons_are_drawn_on_white_with_what_the_benchmark_installs(tmp_path):
    square = '<rect x="4" y="4" width="8" height="8" fill="black"/>'
    icons = {f"{word}-{letter}": {"body": square} for word in HUGEICONS for letter in "ab"}
    (tmp_path / "icons").mkdir()
    (tmp_path / "icons" / "hugeicons.json").write_text(
        json.dumps({"prefix": "hugeicons", "info": {"license": {"spdx": "MIT"}}, "icons": icons})
    )
    learned, judged = hugeicons_families(tmp_path)
    assert list(learned) == list(judged) == list(HUGEICONS)
    drawn = np.asarray(learned["arrow"][0])
    assert drawn.shape == (112, 112, 3) and drawn[0, 0].tolist() == [255] * 3 and drawn[56, 56].tolist() == [0] * 3
