"""From a path to a log that can be written, or to one line that says why not.

1. Everything that can be refused is refused before anything is written.
2. A new database appears under its name when it is whole, or not at all.
3. Epoch and version are settled before the file is used with a write-ahead log: SQLite plays a log into
   whatever file lies beside it, so a file that has none yet must not look as if it had.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import NamedTuple

from chatroom.core.errors import StartError
from chatroom.engines.sqlite.checks import check_content, check_header
from chatroom.engines.sqlite.connecting import (
    connect,
    error_name,
    sync_fully,
    use_write_ahead_log,
)
from chatroom.engines.sqlite.lock import FileLock
from chatroom.engines.sqlite.modes import close_to_others, make_private
from chatroom.engines.sqlite.schema import migrate, settle_epoch


class Opened(NamedTuple):
    """A database in use: the path is the real one, without symbolic links."""

    path: str
    lock: FileLock
    connection: sqlite3.Connection
    epoch: str


def open_database(name: str, new_epoch: Callable[[], str], *, renew: bool) -> Opened:
    """Open or make the database `name`. Raises StartError; a file that is refused is left as it is."""
    path = os.path.realpath(name)
    there = check_header(path)
    lock = FileLock(path)
    try:
        if there:
            check_content(path)
            close_to_others(path)
        else:
            _create(path)
        connection, epoch = _open(path, new_epoch, renew=renew)
        return Opened(path, lock, connection, epoch)
    except (sqlite3.Error, OSError) as error:
        lock.release()
        why = error_name(error) if isinstance(error, sqlite3.Error) else error.strerror
        raise StartError(f"{path} can't be opened ({why}): choose another file by --db") from None
    except BaseException:
        lock.release()
        raise


def _open(path: str, new_epoch: Callable[[], str], *, renew: bool) -> tuple[sqlite3.Connection, str]:
    """Rule 3."""
    connection = connect(path, "rw")
    try:
        sync_fully(connection)
        migrate(connection)
        epoch = settle_epoch(connection, new_epoch, renew=renew)
        use_write_ahead_log(connection)
    except BaseException:
        connection.close()
        raise
    return connection, epoch


def _create(path: str) -> None:
    """Rule 2."""
    draft = path + "-new"
    with suppress(FileNotFoundError):
        os.unlink(draft)
    make_private(draft)
    with closing(connect(draft, "rw")) as connection:
        sync_fully(connection)
        migrate(connection)
    os.replace(draft, path)
    sync_folder(path)


def sync_folder(path: str) -> None:
    """Make the name of a file as durable as its content."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
