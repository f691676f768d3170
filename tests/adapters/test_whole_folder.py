import os
from pathlib import Path

import pytest

from kusabi.adapters.whole_folder import whole_folder
from kusabi.errors import AdapterError


def test_the_folder_appears_whole_with_its_parents(tmp_path):
    folder = tmp_path / "a" / "b"
    with whole_folder(folder) as aside:
        (aside / "file").write_bytes(b"1")
        assert not folder.exists() and aside.parent == folder.parent
    assert (folder / "file").read_bytes() == b"1"
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_after_an_error_or_ctrl_c_there_is_nothing(tmp_path, error):
    with pytest.raises(type(error)), whole_folder(tmp_path / "out") as aside:
        (aside / "half").write_bytes(b"1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_disk_is_an_adapter_error_and_leaves_nothing(tmp_path):
    with pytest.raises(AdapterError, match=r"out: not written .*no-such"), whole_folder(tmp_path / "out") as aside:
        (aside / "half").write_bytes(b"1")
        (aside / "no-such" / "file").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_anything_else_stays_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as aside:
        (aside / "file").write_bytes(b"1")
    assert (tmp_path / "empty" / "file").exists()
    (tmp_path / "plain").write_bytes(b"2")
    for name in ("empty", "plain", "plain/below"):
        with pytest.raises(AdapterError, match=name), whole_folder(tmp_path / name):
            raise AssertionError("never entered")
    assert (tmp_path / "plain").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "plain"]
    monkeypatch.chdir(tmp_path / "empty")
    (tmp_path / "empty" / "file").unlink()
    with whole_folder(tmp_path / "empty" / ".." / "near") as aside:
        (aside / "file").write_bytes(b"1")
    assert (tmp_path / "near" / "file").exists()


def test_what_a_killed_process_left_is_in_nobodys_way_though_its_number_comes_back(tmp_path):
    (tmp_path / f".out.{os.getpid()}").mkdir()
    (tmp_path / "plain").mkdir()
    with whole_folder(tmp_path / "out") as aside:
        (aside / "file").write_bytes(b"1")
    assert (tmp_path / "out" / "file").read_bytes() == b"1"
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with whole_folder(tmp_path / "link") as aside:
        (aside / "file").write_bytes(b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "file").read_bytes() == b"1"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(AdapterError, match="circle"), whole_folder(tmp_path / "circle") as aside:
        (aside / "file").write_bytes(b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "disk", "link"]


def test_a_mount_point_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(AdapterError, match="choose a folder inside it"), whole_folder(tmp_path / "disk"):
        pytest.fail("entered")
    with whole_folder(tmp_path / "disk" / "inside"):
        pass
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["inside"]
