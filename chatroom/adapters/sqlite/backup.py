"""A consistent copy of a database, made by another process while the server runs.

1. The database is opened read-only and copied as it stood at one moment; nothing of it is moved or changed.
   While the copy is made, the server goes on, and its write-ahead log grows by what is written meanwhile.
2. The copy appears under its name when it is whole and on the disk. A file that is there is never replaced.
3. The copy is one file, without a write-ahead log, and carries a mark: opened as a database it gets an epoch
   of its own, since ids that were told after the copy was made are told again, for other messages.
"""

import os
import sqlite3
from contextlib import closing, suppress

from chatroom.adapters.sqlite.checks import check_header
from chatroom.adapters.sqlite.connecting import connect, error_name, sync_fully
from chatroom.adapters.sqlite.opening import sync_folder
from chatroom.adapters.sqlite.schema import epoch_of, mark_copy, transaction
from chatroom.values.errors import StartError


def back_up(source: str, target: str) -> None:
    """Copy the database at `source` to `target`. Raises StartError; what was begun is then removed."""
    source, target = os.path.realpath(source), os.path.abspath(target)
    _check(source, target)
    draft = f"{target}-part{os.getpid()}"
    try:
        _copy(source, draft)
        _publish(draft, target)
    except FileExistsError:
        raise _there_already(target) from None
    except (sqlite3.Error, OSError) as error:
        why = error_name(error) if isinstance(error, sqlite3.Error) else error.strerror
        raise StartError(f"{source} can't be copied to {target} ({why})") from None
    finally:
        for suffix in ("", "-journal"):
            with suppress(OSError):
                os.unlink(draft + suffix)


def _check(source: str, target: str) -> None:
    if not os.path.exists(source):
        raise StartError(f"{source} doesn't exist: give the server's database by --db")
    if not check_header(source, write=False):
        raise StartError(f"{source} is empty: give the server's database by --db")
    if os.path.lexists(target):
        raise _there_already(target)


def _there_already(target: str) -> StartError:
    return StartError(f"{target} exists already: give a name that is free")


def _copy(source: str, draft: str) -> None:
    with closing(connect(source, "ro")) as original, closing(connect(draft, "rwc")) as copy:
        original.backup(copy)  # in one step, and so of one moment
        sync_fully(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        with transaction(copy):
            mark_copy(copy)
        if epoch_of(copy) is None:
            raise sqlite3.DatabaseError("the copy is not whole")


def _publish(draft: str, target: str) -> None:
    """Rule 2. Where there are no hard links, the name is only looked at once more."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(draft, target)
    sync_folder(target)
