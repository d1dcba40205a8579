"""A consistent copy of a database, made by another process while the server runs.

1. The database is opened read-only and copied as it stood at one moment; nothing of it is moved or changed.
   While the copy is made, the server goes on, and its write-ahead log grows by what is written meanwhile.
   It is copied in steps, within one transaction that holds the moment, so that it can be interrupted.
2. The copy appears under its name when it is whole and on the disk. A file that is there is never replaced.
3. The copy is one file, without a write-ahead log, and carries a mark: opened as a database it gets an epoch
   of its own, since ids that were told after the copy was made are told again, for other messages.
4. Nobody but its owner may read the copy, and he no more than he may read the database.
5. It is looked through as a whole: a copy of a damaged database is none, and must not push out older ones.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

from chatroom.core.errors import StartError
from chatroom.engines.sqlite.checks import check_header
from chatroom.engines.sqlite.connecting import connect, error_name, sync_fully
from chatroom.engines.sqlite.modes import PRIVATE, mode_of
from chatroom.engines.sqlite.publishing import check_free, publishing
from chatroom.engines.sqlite.schema import epoch_of, mark_copy, transaction

_STEP_PAGES = 4096
_STEP_INSTRUCTIONS = 100_000
"""Of the machine in which SQLite runs statements: some milliseconds."""
_HOLED_ROOM = """
    SELECT name FROM room JOIN (SELECT room, count(*) AS count, max(id) AS last FROM message GROUP BY room)
    ON room = key WHERE count <> last - trimmed LIMIT 1
"""


def back_up(source: str, target: str, check: Callable[[], None] = lambda: None) -> None:
    """Copy the database at `source` to `target`. Raises StartError; what was begun is then removed.

    `check` is called every now and then; what it raises ends the copy.
    """
    source, target = os.path.realpath(source), os.path.abspath(target)
    check_source(source)
    check_free(target)
    try:
        with publishing(target) as draft:
            _copy(source, draft, check)
    except (sqlite3.Error, OSError) as error:
        check()  # a statement that it ended has failed
        why = error_name(error) if isinstance(error, sqlite3.Error) else error.strerror
        raise StartError(f"{source} can't be copied to {target} ({why})") from None


def check_source(source: str) -> None:
    """Raises StartError where there is no database of this program."""
    if not os.path.exists(source):
        raise StartError(f"{source} doesn't exist: give the server's database by --db")
    if not check_header(source, write=False):
        raise StartError(f"{source} is empty: give the server's database by --db")


def _copy(source: str, draft: str, check: Callable[[], None]) -> None:
    with closing(connect(source, "ro")) as original, closing(connect(draft, "rw")) as copy:
        original.execute("BEGIN")
        original.execute("SELECT count(*) FROM sqlite_schema")  # the first reading fixes the moment
        original.backup(copy, pages=_STEP_PAGES, progress=lambda *_: check())
        copy.set_progress_handler(check, _STEP_INSTRUCTIONS)
        sync_fully(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        with transaction(copy):
            mark_copy(copy)
        if epoch_of(copy) is None:
            raise sqlite3.DatabaseError("the copy is not whole")
        _check_whole(source, copy)
    os.chmod(draft, PRIVATE & mode_of(source))


def _check_whole(source: str, copy: sqlite3.Connection) -> None:
    """Rule 5."""
    (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    holed = copy.execute(_HOLED_ROOM).fetchone()
    if found != "ok" or holed is not None:
        why = (
            " ".join(str(found).split())[:200]
            if found != "ok"
            else f"messages of room {holed[0]!a} are missing"
        )
        raise StartError(f"{source} is damaged ({why}), so no copy was kept: see what older backups have")
