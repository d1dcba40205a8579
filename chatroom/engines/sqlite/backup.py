"""A database as a whole: copied while the server runs, read for a store, or written from one.

A backup, a consistent copy made by another process while the server runs:

1. The database is opened read-only and copied as it stood at one moment. Nothing of it is moved or changed.
   While the copy is made, the server goes on, and its write-ahead log grows by what the server writes. The
   database is copied in steps, within one transaction that holds the moment, so that the copy can be
   interrupted.
2. The copy is one file, without a write-ahead log, and carries a mark. When it is opened as a database it
   gets an epoch of its own, since ids that were told after the copy was made are told again, for other
   messages.
3. Nobody but the owner may read the copy, and the owner no more than the database.
4. The copy is looked through as a whole. A copy of a damaged database is no backup, and must not push out
   older ones.

Publishing a new file:

5. It appears under its name when it is whole and on the disk, or not at all. A file that is there is never
   replaced.
6. A file that was begun and not finished is removed. What a killed process has left is not in the way.

All of a database, read for a copy into a store of several nodes, or written as a copy out of one:

7. A database is opened as a server opens it: locked, so that no server runs meanwhile, looked at, led
   forward. So its rooms go on in the store under the epoch that they have here, and a backup gets an epoch of
   its own first.
8. What is read has no hole: a damaged database isn't copied.
9. A new database is written in one transaction, and published when it is whole.

It doesn't know the store, nor the command that asks.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from chatroom.core.errors import StartError
from chatroom.core.messages import Record, RoomLog
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines.changes import rest_of
from chatroom.engines.sqlite.log import INSERT, Log
from chatroom.engines.sqlite.opening import (
    PRIVATE,
    check_header,
    make_private,
    mode_of,
    open_database,
    sync_folder,
)
from chatroom.engines.sqlite.schema import (
    connect,
    epoch_of,
    error_name,
    mark_copy,
    migrate,
    set_room_epoch,
    sync_fully,
    transaction,
)

# Publishing


def check_free(target: str) -> None:
    """Raises StartError if a file has the name already."""
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
    """Rule 5. Raises StartError, OSError. Without hard links, the name is only looked at once more."""
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


# A backup

_STEP_PAGES = 1024
_STEP_INSTRUCTIONS = 100_000
"""Instructions of the machine in which SQLite runs statements: some milliseconds."""
_HOLED_ROOM = """
    SELECT name FROM room JOIN (SELECT room, count(*) AS count, max(id) AS last FROM message GROUP BY room)
    ON room = key WHERE count <> last - trimmed LIMIT 1
"""


def back_up(source: str, target: str, check: Callable[[], None] = lambda: None) -> None:
    """Copy the database at `source` to `target`. Raises StartError: then the unfinished copy is removed.

    `check` is called every now and then; an exception that it raises ends the copy.
    """
    source, target = os.path.realpath(source), os.path.abspath(target)
    check_source(source)
    check_free(target)
    try:
        with publishing(target) as draft:
            _copy(source, draft, check)
    except (sqlite3.Error, OSError) as error:
        check()  # it may have ended the statement that failed
        why = error_name(error) if isinstance(error, sqlite3.Error) else error.strerror
        raise StartError(f"{source} can't be copied to {target} ({why})") from None


def check_source(source: str) -> None:
    """Raises StartError if there is no database of this program."""
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
    """Rule 4. Raises StartError."""
    (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    holed = copy.execute(_HOLED_ROOM).fetchone()
    if found != "ok" or holed is not None:
        why = (
            " ".join(str(found).split())[:200]
            if found != "ok"
            else f"messages of room {holed[0]!a} are missing"
        )
        raise StartError(f"{source} is damaged ({why}), so no copy was kept: see what older backups have")


# All of a database

_PAGE = 1000
_SANCTIONS = """
    SELECT action, username, by, until, reason FROM sanction WHERE room = ? ORDER BY username, action
"""


def sanctions_of(connection: sqlite3.Connection, room: str) -> tuple[Sanction, ...]:
    """All of a room that are known, also those that have ended."""
    return tuple(Sanction(Action(action), *rest) for action, *rest in connection.execute(_SANCTIONS, (room,)))


class SourceDatabase:
    """A database that is read as a whole."""

    def __init__(self, name: str, new_epoch: Callable[[], str]) -> None:
        """Raises StartError, also if a server uses the database."""
        check_source(os.path.realpath(name))
        opened = open_database(name, new_epoch, renew=False)
        self._path = opened.path
        self._lock = opened.lock
        self._epoch = opened.epoch
        self._log = Log(opened.connection)

    def close(self) -> None:
        """Let other processes have the database."""
        self._log.close()
        self._lock.release()

    def rooms(self) -> list[RoomLog]:
        """All rooms in which a record was ever stored, in the order of their names. Raises StartError."""
        found: list[RoomLog] = []
        with self._reading():
            name = ""
            while names := self._log.rooms_after(name, _PAGE):
                for name in names:
                    extent = self._log.extent(name)
                    epoch = extent.epoch or self._epoch
                    found.append(
                        RoomLog(
                            *(name, epoch, extent.trimmed + 1, extent.last, extent.others),
                            sanctions_of(self._log.connection, name),
                        )
                    )
        return found

    def read(self, room: str, after: int, limit: int, max_bytes: int) -> list[Record]:
        """At most `limit` records after the id `after`, ending with the one that makes `max_bytes` of text.

        Raises StartError.
        """
        with self._reading():
            return self._log.read(room, after, after + limit, limit, max_bytes)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            why = str(error) if error_name(error) == "DatabaseError" else error_name(error)
            raise StartError(f"{self._path} is damaged ({why}): see what its backups have") from None


class NewDatabase:
    """A database that is being written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._key: int | None = None

    def begin_room(self, log: RoomLog) -> None:
        """Begin the room of `log`, with its sanctions: records added from here on belong to it."""
        self._key = self._connection.execute(
            "INSERT INTO room (name, trimmed, others) VALUES (?, ?, ?)", (log.room, log.first - 1, log.others)
        ).lastrowid
        set_room_epoch(self._connection, log.room, log.epoch)
        self._connection.executemany(
            "INSERT INTO sanction VALUES (?, ?, ?, ?, ?, ?)", [(log.room, *each) for each in log.sanctions]
        )

    def add(self, records: Sequence[Record]) -> None:
        """Add records to the room; their ids are dense and ascending."""
        self._connection.executemany(INSERT, [(self._key, *each[:5], rest_of(each)) for each in records])


@contextmanager
def new_database(name: str) -> Iterator[NewDatabase]:
    """A new database, which is published at the end of the block. Raises StartError.

    Its rooms have epochs of their own. For other rooms it gets an epoch when it is first opened.
    """
    target = os.path.abspath(name)
    check_free(target)
    try:
        with publishing(target) as draft, closing(connect(draft, "rw")) as connection:
            sync_fully(connection)
            migrate(connection)
            with transaction(connection):
                yield NewDatabase(connection)
    except (sqlite3.Error, OSError) as error:
        why = error_name(error) if isinstance(error, sqlite3.Error) else error.strerror
        raise StartError(f"{target} can't be written ({why})") from None
