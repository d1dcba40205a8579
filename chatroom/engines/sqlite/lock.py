"""One server a database: a lock on a file beside it.

The lock is the kernel's and goes with the process, however it ends; the file stays and means nothing. It is
not the database itself that is locked: closing any descriptor of that would drop the locks that SQLite has.
"""

import fcntl
import os
from contextlib import suppress

from chatroom.core.errors import StartError
from chatroom.engines.sqlite.modes import make_private

SUFFIX = "-lock"


class FileLock:
    """Held from its making to `release`."""

    __slots__ = ("_fd",)

    def __init__(self, database: str) -> None:
        """Raises StartError if another process holds it, or the file can't be made."""
        name = database + SUFFIX
        try:
            with suppress(FileExistsError):
                make_private(name)
            self._fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StartError(
                f"{database} can't be used, since {name} can't be written ({error.strerror}): "
                "choose another place by --db"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                text = f"another server uses {database}: stop it, or choose another file by --db"
            else:
                text = f"{name} can't be locked ({error.strerror}): choose a place on a local disk by --db"
            raise StartError(text) from None

    def release(self) -> None:
        """Let others have it."""
        os.close(self._fd)
