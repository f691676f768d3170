"""The command line: its verbs, errors in plain text, exit codes.

Exit codes: 0 done; 1 nobody reads what is said; 2 something the user can put right, told in plain text on standard
error; 130 interrupted.
"""

import gc
import io
import os
import sys
from typing import Any

import typer

from kusabi.commands import composing, evidence, fitting, pages, placing, stored
from kusabi.errors import KusabiError, told

# Typer carries its own copy of click and exports one leaf of its errors; this is the root of them.
CommandLineError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="kusabi",
    help="Fit a frozen vision-language model to your own pictures with a sparse adapter.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


INTERRUPTED = 130
RESUMED = ("adapt", "ablate", "curve", "baseline")
RARE = (50_000, 20, 100)
"""Allocations before garbage is looked for, and rounds before older objects are. Libraries make very many
objects that live as long as the process: at Python's own 700 they are looked through again and again."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(*RARE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Japanese letters shows their numbers
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if sys.stdout:  # none where it was closed from the start
            sys.stdout.flush()  # a reader that has gone is noticed here, not on the way out
    except KusabiError as error:
        code = _refuse(str(error))
    except CommandLineError as error:
        code = _refuse(error.format_message())
    except BrokenPipeError:
        code = _unheard()
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise  # not the system's: a mistake of ours, or of a library
        code = _refuse(told(error))
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer makes one of Ctrl-C by itself
        verb = next(iter(sys.argv[1:]), "")
        more = f"; 'kusabi {verb}' goes on where it was with --resume" if verb in RESUMED else ""
        print(f"interrupted{more}", file=sys.stderr)
    gc.freeze()  # nor is it looked for on the way out
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> int:
    print(f"kusabi: {message}", file=sys.stderr)
    return 2


def _unheard() -> int:
    """Whoever read standard output has gone, as `head` does: what is left unsaid goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


for verb in (
    fitting.adapt, fitting.baseline, fitting.plan, placing.ablate, evidence.curve, stored.evaluate, stored.predict,
    stored.export, pages.report, pages.demo, composing.compose,
):  # fmt: skip
    app.command(name=verb.__name__)(verb)


@app.command(name="version")
def show_version() -> None:
    """The version of this program."""
    from importlib.metadata import version

    print(version("kusabi"))


if __name__ == "__main__":
    main()
