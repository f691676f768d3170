"""What verbs print, and how."""

import json
import shlex
import sys
from typing import Any


def typed() -> str:
    """What the user typed; bytes that are no text, of a path in an old encoding, as escapes."""
    return shlex.join(["kusabi", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def tables() -> Any:
    """The tables; imported when one is shown."""
    from kusabi.recipes import tables

    return tables


def progress(quiet: bool) -> Any:
    """A progress bar on standard error."""
    from kusabi.recipes.progress import progress

    return progress(quiet)
