"""Options are made of the spec: whatever it can say, a flag can, too."""

from typing import Any

import typer

from kusabi.cli import app
from kusabi.spec import PARTS


def test_whatever_can_be_switched_on_can_be_switched_off():
    program: Any = typer.main.get_command(app)
    command = program.commands["adapt"]
    known = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
    switches = [
        name.replace("_", "-")
        for part in PARTS.values()
        for name, field in part.model_fields.items()
        if field.annotation is bool
    ]
    assert {"temper", "skip-unreadable"} <= set(switches)
    assert {f"--{name}" for name in switches} | {f"--no-{name}" for name in switches} <= known
