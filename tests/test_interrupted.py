"""Ctrl-C in the middle of a verb: one line that says how to go on, and the exit code of an interruption."""

import gc

import pytest

from kusabi import cli
from kusabi.recipes import adapt as recipe


@pytest.fixture
def garbage(monkeypatch):
    before = gc.get_threshold()
    monkeypatch.setattr(cli.gc, "freeze", lambda: None)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("garbage")
def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "adapt", interrupted)
    monkeypatch.setattr("sys.argv", ["kusabi", "adapt", "photos", "--quiet"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted; 'kusabi adapt' goes on where it was with --resume\n"
