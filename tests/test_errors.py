import errno
import os

from kusabi.errors import listed, told


def test_a_long_list_names_twenty_and_counts_the_rest():
    assert listed([str(i) for i in range(23)]).endswith("18, 19 and 3 more")
    assert listed(["a", "b"]) == "a, b"


def test_an_error_of_the_system_names_the_file_the_reason_and_what_to_do():
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "photos/lot")
    assert told(denied) == "photos/lot: Permission denied; change its permissions"
    assert told(OSError("odd")) == "odd; check the path and the disk"
