"""How the program ends where the system, not the user's spec, says no."""

import os
import subprocess
import sys

import pytest

from kusabi import cli
from kusabi.commands.shown import typed
from kusabi.recipes import adapt as recipe


@pytest.fixture
def ended(monkeypatch):
    """Exit code of ``kusabi adapt photos`` where its recipe raises an error."""
    monkeypatch.setattr(cli.gc, "freeze", lambda: None)
    monkeypatch.setattr(cli.gc, "set_threshold", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["kusabi", "adapt", "photos", "--quiet"])

    def code(error):
        def failing(*_arguments, **_options):
            raise error

        monkeypatch.setattr(recipe, "adapt", failing)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    return code


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "runs/x"), "runs/x: Permission denied; change its permissions"),
        (OSError(28, "No space left on device"), "No space left on device; make room on the disk"),
        (NotADirectoryError(20, "Not a directory", "a/b"), "a/b: Not a directory; check the path and the disk"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_line(ended, capsys, error, told):
    assert ended(error) == 2
    assert capsys.readouterr().err == f"kusabi: {told}\n"


def test_what_was_typed_can_be_written_down(monkeypatch):
    monkeypatch.setattr("sys.argv", ["kusabi", "adapt", "sj_\udc83J", "傷 タイル"])
    assert typed() == r"kusabi adapt 'sj_\udc83J' '傷 タイル'"


def test_an_error_that_is_not_the_systems_is_not_dressed_up_as_one(ended):
    with pytest.raises(OSError, match="of a library"):
        ended(OSError("a mistake of a library"))


def test_a_name_that_is_too_long_is_told_in_one_line(ended, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for arguments in (["plan", "x" * 300], ["plan", "photos", "--placement", "x" * 300]):
        monkeypatch.setattr("sys.argv", ["kusabi", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr().err
        assert end.value.code == 2 and said.startswith("kusabi: xxx") and said.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise there")
def test_a_reader_that_has_gone_ends_the_program_quietly(capsys, ended):
    assert ended(BrokenPipeError(32, "Broken pipe")) == 1 and capsys.readouterr().err == ""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "kusabi.cli", "version"], stdout=writing, stderr=subprocess.PIPE, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
