import io

from rich.console import Console

from kusabi.recipes import progress as module
from kusabi.recipes.watch import silent


def test_a_bar_is_drawn_for_what_has_more_than_one_unit(monkeypatch):
    drawn = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=drawn, force_terminal=True, width=120))
    with module.progress(quiet=False) as watch:
        watch("model loaded", 1, 1)
        watch("training", 1, 2, loss=0.25)
        watch("training", 2, 2, loss=0.125)
    assert "training" in drawn.getvalue() and "loss 0.125" in drawn.getvalue()
    assert "model loaded" not in drawn.getvalue()


def test_nobody_is_shown_anything_who_asked_for_quiet():
    with module.progress(quiet=True) as watch:
        assert watch is silent
