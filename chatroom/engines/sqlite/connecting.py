"""How a connection to a database is made, and how its errors are told apart.

the store's  the disk is full or fails, the file is locked or damaged: no draft is guilty
a draft's    everything else: this draft can't be stored, others can
"""

import os
import sqlite3
from urllib.parse import quote

BUSY_SECONDS = 1.0
CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log from which on a commit moves them into the database: 16 MiB."""
WAL_BYTES = 16 * 1024 * 1024
"""What is left of a write-ahead log that a long backup has made larger, once it is begun from the start."""

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
    """A connection without transactions of its own accord; `mode` is ro, rw or rwc."""
    name = f"file:{quote(os.fsencode(path))}?mode={mode}{'&immutable=1' if immutable else ''}"
    return sqlite3.connect(name, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def sync_fully(connection: sqlite3.Connection) -> None:
    """From here on a commit returns when it is on the disk."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # where fsync alone doesn't reach the disk: macOS
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """From here on commits are written to a log, which is moved into the database now and then."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("no write-ahead log can be used here")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")


def error_code(error: BaseException) -> int:
    """SQLite's primary code of an error; 0 for what isn't one of SQLite's."""
    if isinstance(error, MemoryError):
        return sqlite3.SQLITE_NOMEM
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def error_name(error: BaseException) -> str:
    """SQLite's name for an error: SQLITE_IOERR_FSYNC."""
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)


def is_of_the_store(error: BaseException) -> bool:
    """Whether the store has failed, and not a draft."""
    return error_code(error) in _OF_THE_STORE
