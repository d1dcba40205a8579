"""Who may read the files of a database: their modes, whatever the umask is.

1. What is made here is 0600, from its first moment on.
2. A database that everybody may read or write had its mode from the umask of an earlier version: it becomes
   0600 as well. One that is open to its group alone (0640, 0660) was made so on purpose, and stays.
3. SQLite makes the write-ahead log and its index with the mode of the database. Where they lie there from
   before, and for the lock, the same mode is set here.
"""

import logging
import os
import stat
from contextlib import suppress

from chatroom.core.journal import note

PRIVATE = 0o600
_OTHERS = 0o007
_BESIDE = ("-wal", "-shm", "-lock")


def make_private(path: str) -> None:
    """Make an empty file that only its owner may read. Raises OSError; FileExistsError if it is there."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        os.fchmod(fd, PRIVATE)  # a strange umask takes even the owner's rights
    finally:
        os.close(fd)


def mode_of(path: str) -> int:
    """The mode of a file."""
    return stat.S_IMODE(os.stat(path).st_mode)


def close_to_others(path: str) -> None:
    """Rules 2 and 3, for a database that is there. What belongs to somebody else is left as it is."""
    was = mode_of(path)
    if was & _OTHERS:
        with suppress(PermissionError):
            os.chmod(path, PRIVATE)
        note(logging.WARNING, "database_mode", was=f"{was:04o}", now=f"{mode_of(path):04o}")
    now = mode_of(path)
    for suffix in _BESIDE:
        with suppress(FileNotFoundError, PermissionError):
            if mode_of(path + suffix) != now:
                os.chmod(path + suffix, now)
