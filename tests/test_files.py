import pytest

from kusabi import files
from kusabi.errors import FileError
from kusabi.files import check_place, make_folder, write_bytes


def test_a_file_is_replaced_as_a_whole(tmp_path):
    for content in (b"old", b"new"):
        write_bytes(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside(reason, tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")

    def refuse(_descriptor):
        raise reason

    monkeypatch.setattr(files.os, "fsync", refuse)
    told = pytest.raises(FileError, match=r"file: cannot be written \(No space left")
    with told if isinstance(reason, OSError) else pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_is_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file is a file"):
        check_place(tmp_path / "file" / "run")
    with pytest.raises(FileError, match="cannot be written"):
        make_folder(tmp_path / "file" / "run")
    check_place(tmp_path / "runs" / "new")
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(FileError, match="no right to write"):
        check_place(tmp_path / "runs" / "new")
    assert not (tmp_path / "runs").exists()
