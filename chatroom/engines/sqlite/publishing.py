"""A new database file, which appears under its name when it is whole and on the disk, or not at all.

1. A file that is there is never replaced.
2. What was begun and not ended is removed. What a killed process has left is not in the way.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chatroom.core.errors import StartError
from chatroom.engines.sqlite.modes import make_private
from chatroom.engines.sqlite.opening import sync_folder


def check_free(target: str) -> None:
    """Raises StartError where a file has the name already."""
    if os.path.lexists(target):
        raise _there_already(target)


@contextmanager
def publishing(target: str) -> Iterator[str]:
    """The name of an empty file that only its owner may read; at the end of the block it becomes `target`.

    What is written to it in the block is synced there, and closed. Raises StartError, OSError.
    """
    draft = f"{target}-part{os.getpid()}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        make_private(draft)
        yield draft
        _publish(draft, target)
    finally:
        for suffix in ("", "-journal"):
            with suppress(OSError):
                os.unlink(draft + suffix)


def _publish(draft: str, target: str) -> None:
    """Rule 1. Where there are no hard links, the name is only looked at once more."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise _there_already(target) from None
    except OSError:
        check_free(target)
        os.rename(draft, target)
    sync_folder(target)


def _there_already(target: str) -> StartError:
    return StartError(f"{target} exists already: give a name that is free")
