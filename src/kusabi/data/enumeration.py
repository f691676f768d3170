"""Many names in one message: the first twenty, then a count."""

from collections.abc import Sequence

MOST = 20


def enumerated(names: Sequence[str], joint: str = ", ") -> str:
    """The first ``MOST`` names in full, then how many more there are.

    A name that is not valid Unicode (a file name in an old encoding) is shown with escapes.
    """
    shown = joint.join(name.encode("utf-8", "backslashreplace").decode() for name in names[:MOST])
    return shown if len(names) <= MOST else f"{shown}{joint}and {len(names) - MOST} more"
