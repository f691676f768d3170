"""Every exception raised on purpose.

The message is written for the person at the keyboard: what was wrong, where, and what to do about it.
The command line prints it as it is and exits with 2.
"""

import errno
from collections.abc import Sequence

_REMEDIES = {
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: "make room on the disk",
}


def listed(parts: Sequence[str], separator: str = ", ") -> str:
    """The first 20 parts, then how many more there are: complete enough to act on, short enough to read."""
    more = f" and {len(parts) - 20} more" if len(parts) > 20 else ""
    return separator.join(parts[:20]) + more


def told(error: OSError) -> str:
    """What the system refused, in one line: the file as far as it is known, the reason, what to do."""
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}; {_REMEDIES.get(error.errno or 0, 'check the path and the disk')}"


class KusabiError(Exception):
    """Something the user can put right; base of all errors below."""


class SpecError(KusabiError):
    """A spec file or flag that cannot be understood."""


class DataError(KusabiError):
    """A folder, picture, label or split that cannot be used."""


class BackboneError(KusabiError):
    """A model that cannot be loaded, or is not supported."""


class AdapterError(KusabiError):
    """An adapter that does not fit: no targets, wrong backbone, wrong shapes."""


class CheckpointError(KusabiError):
    """A file of an adapter or a run that is missing, damaged or from another version."""


class FileError(KusabiError):
    """A file or folder that the disk refuses to write."""


class RunError(KusabiError):
    """A run folder that is in the way, unfinished, or not a run."""
