from hypothesis import given, settings
from hypothesis import strategies as st

from kusabi.report.pictures import shown, shown_files


def flip(label, file):
    return {"file": file, "label": label, "before": "x", "after": "y"}


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 15))
@settings(deadline=None, max_examples=60)
def test_classes_share_the_room_evenly_and_keep_their_order(labels, limit):
    flips = [flip(label, place) for place, label in enumerate(labels)]
    chosen = shown(flips, limit=limit)
    assert len(chosen) == min(limit, len(flips))
    counts = {label: sum(one["label"] == label for one in chosen) for label in set(labels)}
    for label, count in counts.items():
        own = [one["file"] for one in flips if one["label"] == label]
        assert [one["file"] for one in chosen if one["label"] == label] == own[:count]
        assert count == len(own) or count >= max(counts.values()) - 1


def test_pictures_with_a_thumbnail_come_before_those_without():
    flips = [flip(label, f"{label}{place}") for label in "ab" for place in range(20)]
    pictured = {"a15", "a16", "b19"}
    files = [one["file"] for one in shown(flips, pictured)]
    assert pictured <= set(files) and len(files) == 12
    assert [one["file"] for one in shown(flips, {one["file"] for one in flips[:20]})] == [f"a{n}" for n in range(12)]


def test_files_to_picture_are_those_shown(evaluation_of):
    evaluation = evaluation_of()
    files = shown_files(evaluation)
    flipped = [one["file"] for kind in ("fixed", "broken") for one in evaluation["flips"][kind]]
    assert len(evaluation["flips"]["fixed"]) > 12, "the sample has too few flips to test the limit"
    assert len(files) == sum(min(12, len(evaluation["flips"][kind])) for kind in ("fixed", "broken"))
    assert set(files) <= set(flipped)
