"""Ctrl-C in the middle of a verb: one line that says how to go on, and the exit code of an interruption."""

import gc

import pytest

from kusabi import cli
from kusabi.recipes import adapt, curve, stored_adapter


@pytest.fixture
def garbage(monkeypatch):
    before = gc.get_threshold()
    monkeypatch.setattr(cli.gc, "freeze", lambda: None)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize(
    ("module", "verb", "arguments", "told"),
    [
        (adapt, "adapt", ["photos", "--quiet"], "interrupted; 'kusabi adapt' goes on where it was with --resume\n"),
        (curve, "curve", ["photos", "--quiet"], "interrupted; 'kusabi curve' goes on where it was with --resume\n"),
        (stored_adapter, "predict", ["run", "one.png"], "interrupted\n"),
    ],
)
def test_ctrl_c_says_how_to_go_on(module, verb, arguments, told, monkeypatch, capsys):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, verb, interrupted)
    monkeypatch.setattr("sys.argv", ["kusabi", verb, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err == told
