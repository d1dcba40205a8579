"""The tables of a database, their versions, its epochs, and how a connection to it is made.

The tables and the epochs:

1. `application_id` says that a file is ours, `user_version` which form its tables have. Each step of
   MIGRATIONS leads from one version to the next. A file is only ever led forward.
2. A room has a row from its first record on. Its records, in the table `message`, are dense from
   `trimmed + 1` on, so its last id is that of its last record, or `trimmed` where none is left: ids go on
   even if all are gone. `others` is how many of all that it ever had were no messages.
3. The rooms of a file share one epoch, which goes where their last ids go. A copy carries a mark. When a copy
   is opened as a database, it gets an epoch of its own in the transaction that removes the mark.
4. A room that came from a store of several nodes has an epoch of its own, until the file gets a new one.

Connections and their errors:

5. A connection begins no transaction by itself. A commit returns when it is on the disk.
6. What is deleted is overwritten by zeros. Copies that SQLite left when it split pages are not; see `store`.
7. An error is either the store's or a draft's:

    the store's  the disk is full or fails, the file is locked or damaged: no draft is at fault
    a draft's    everything else: this draft can't be stored, others can

It doesn't know what is read from the tables, nor who asks.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from urllib.parse import quote

# Connections and their errors

BUSY_SECONDS = 1.0
"""Seconds to wait for another program that has locked the database."""
CHECKPOINT_PAGES = 4000
"""Pages of a write-ahead log from which on a commit moves them into the database: 16 MiB."""
WAL_BYTES = 16 * 1024 * 1024
"""Bytes to which a write-ahead log is cut that a long backup has made larger."""

_OF_THE_STORE = frozenset({
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOTADB,
})  # fmt: skip


def connect(path: str, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that begins no transaction by itself; `mode` is ro, rw or rwc. Raises sqlite3.Error."""
    name = f"file:{quote(os.fsencode(path))}?mode={mode}{'&immutable=1' if immutable else ''}"
    return sqlite3.connect(name, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def sync_fully(connection: sqlite3.Connection) -> None:
    """From here on a commit returns when it is on the disk."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # where fsync alone doesn't reach the disk: macOS
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """From here on commits are written to a log, which is moved into the database now and then.

    Raises sqlite3.Error.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("no write-ahead log can be used here")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute("PRAGMA secure_delete = ON")


def error_code(error: BaseException) -> int:
    """SQLite's primary code of an error; 0 for an error that isn't SQLite's."""
    if isinstance(error, MemoryError):
        return sqlite3.SQLITE_NOMEM
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def error_name(error: BaseException) -> str:
    """SQLite's name for an error: SQLITE_IOERR_FSYNC."""
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)


def is_of_the_store(error: BaseException) -> bool:
    """Whether the store has failed, and not a draft."""
    return error_code(error) in _OF_THE_STORE


# The tables and the epochs

APPLICATION_ID = 0x63686174  # "chat"

_FIRST = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE room (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, trimmed INTEGER NOT NULL)",
    """CREATE TABLE message (
        room INTEGER NOT NULL,
        id INTEGER NOT NULL,
        ts INTEGER NOT NULL,
        username TEXT NOT NULL,
        text TEXT NOT NULL,
        cid TEXT,
        PRIMARY KEY (room, id)
    ) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX message_cid ON message (room, username, cid) WHERE cid IS NOT NULL",
)
_RECORDS = (
    # What a record says beyond the other columns, as JSON: see `changes`. NULL for a message as posted.
    "ALTER TABLE message ADD COLUMN rest TEXT",
    "CREATE INDEX message_rest ON message (room, id) WHERE rest IS NOT NULL",
    "ALTER TABLE room ADD COLUMN others INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE sanction (
        room TEXT NOT NULL,
        action TEXT NOT NULL,
        username TEXT NOT NULL,
        by TEXT NOT NULL,
        until INTEGER,
        reason TEXT NOT NULL,
        PRIMARY KEY (room, action, username)
    ) WITHOUT ROWID""",
)
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _RECORDS)
VERSION = len(MIGRATIONS)

EPOCH_OF_ROOM = "epoch of "
"""What the name of a room's own epoch begins with; then comes the room's name."""
_EPOCH, _COPY, _TIME = "epoch", "copy", "time"


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the file's tables; 0 for a file without any."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, steps: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Lead the file to the last version, by all steps or none. Raises sqlite3.Error."""
    version = version_of(connection)
    if version == len(steps):
        return
    with transaction(connection):
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(steps)}")


def settle_epoch(connection: sqlite3.Connection, new_epoch: Callable[[], str], *, renew: bool) -> str:
    """The epoch of the file; a new one if it has none, is an unopened copy, or `renew` asks for it.

    In the last two cases the epochs of rooms are removed.
    """
    known = _meta(connection, _EPOCH)
    if known is not None and not renew and _meta(connection, _COPY) is None:
        return known
    epoch = new_epoch()
    with transaction(connection):
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_EPOCH, epoch))
        if renew or _meta(connection, _COPY) is not None:
            connection.execute("DELETE FROM meta WHERE name GLOB ?", (EPOCH_OF_ROOM + "*",))
        connection.execute("DELETE FROM meta WHERE name = ?", (_COPY,))
    return epoch


def set_room_epoch(connection: sqlite3.Connection, room: str, epoch: str) -> None:
    """Give one room this epoch."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (EPOCH_OF_ROOM + room, epoch))


def epoch_of(connection: sqlite3.Connection) -> str | None:
    """The epoch of the file as it stands."""
    return _meta(connection, _EPOCH)


def mark_copy(connection: sqlite3.Connection) -> None:
    """Mark this file as a copy: it gets an epoch of its own when it is opened as a database."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, 1)", (_COPY,))


def noted_time(connection: sqlite3.Connection) -> int | None:
    """The last time of day that was noted in the file, in milliseconds."""
    time = _meta(connection, _TIME)
    return None if time is None else int(time)


def note_time(connection: sqlite3.Connection, time: int) -> None:
    """Note the time of day, by which messages grow old."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_TIME, time))


def _meta(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


class transaction:  # noqa: N801  (used like a function, as in contextlib)
    """A transaction that writes: committed at the end of the block, rolled back by an exception in it.

    A commit that fails is rolled back and its error raised. Whether it was stored is then for the caller to
    find out.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # some errors have rolled back by themselves
            self._connection.execute("ROLLBACK")
