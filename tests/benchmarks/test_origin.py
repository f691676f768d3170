from benchmarks.origin import content_digest, origin
from kusabi.spec_file import build


def test_a_run_is_named_by_what_was_asked_and_by_its_pictures(tmp_path):
    picture = tmp_path / "train" / "a" / "0000.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"one")
    first = origin(build({}), tmp_path, "cpu", 1)
    assert first == origin(build({}), tmp_path, "cpu", 1)
    others = [
        origin(build({"seed": 1}), tmp_path, "cpu", 1), origin(build({}), tmp_path, "cpu", 2),
        origin(build({}), tmp_path, "cuda", 1),
    ]  # fmt: skip
    picture.write_bytes(b"two")
    others.append(origin(build({}), tmp_path, "cpu", 1))
    assert len({first, *others}) == 5


def test_a_renamed_file_is_another_content(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    before = content_digest(tmp_path.iterdir(), tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert content_digest(tmp_path.iterdir(), tmp_path) != before
