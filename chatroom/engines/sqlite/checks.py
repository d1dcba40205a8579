"""What is looked at before anything is written: is this file ours, of a form we know, and whole?

1. Nothing here changes a byte of a database. It is opened read-only, and where no write-ahead log lies
   beside it, as an immutable file.
2. The look has a deadline, whatever the size of the file: it takes the header, the length of the file, the
   tables of rooms and settings, and then as much of the messages as the rest of the time allows. Of a file
   of 10 GB that is a part; damage beyond it is found when it is read, and stops neither start nor traffic.
3. A write-ahead log is believed to be the file's own, unless the file was never opened with one: SQLite
   would play the log of a removed database into the one that was put in its place.
"""

import os
import sqlite3
import threading
from contextlib import closing

from chatroom.core.errors import StartError
from chatroom.engines.sqlite.connecting import connect, error_code, error_name
from chatroom.engines.sqlite.schema import APPLICATION_ID, VERSION, version_of

CHECK_SECONDS = 0.5
_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_WAL_MODE = 2


def check_header(path: str, *, write: bool = True) -> bool:
    """Look at a file's first bytes; false if there is no file yet or nothing in it. Raises StartError."""
    try:
        with open(path, "r+b" if write else "rb", buffering=0) as file:
            header = file.read(_HEADER)
    except FileNotFoundError:
        header = b""
    except OSError as error:
        wanted = "read and written" if write else "read"
        raise StartError(
            f"{path} can't be {wanted} ({error.strerror}): choose another file by --db"
        ) from None
    if not header:
        _check_no_leftovers(path, "is missing or empty")
        return False
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise StartError(f"{path} is no database: choose another file by --db")
    if int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise StartError(f"{path} is a database of another program: choose another file by --db")
    _check_version(path, int.from_bytes(header[60:64]))
    if header[18] != _WAL_MODE:
        _check_no_leftovers(path, "was put in the place of another database")
    return True


def _check_version(path: str, version: int) -> None:
    if not 0 < version <= VERSION:
        raise StartError(
            f"{path} was written by a newer version of chatroom (its form is {version}, this version knows "
            f"{VERSION}): use that version, or choose another file by --db"
        )


def _check_no_leftovers(path: str, what: str) -> None:
    """Rule 3."""
    wal = path + "-wal"
    if _size(wal):
        raise StartError(
            f"{path} {what}, but {wal} is still there: put back the database that it belongs to, "
            "or move it away"
        )


def check_content(path: str, seconds: float = CHECK_SECONDS) -> None:
    """Look into a database that has passed `check_header`, for a limited time.

    Raises StartError, and sqlite3.Error if it can't be opened.
    """
    try:
        with closing(_open_to_look(path)) as connection:
            _check_version(path, version_of(connection))
            found = _damage(connection, seconds)
    except sqlite3.Error as error:
        if error_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        found = error_name(error)
    if found is not None:
        raise StartError(
            f"{path} is damaged ({found}): put a backup in its place, or move it away to begin anew"
        )


def _open_to_look(path: str) -> sqlite3.Connection:
    if _size(path + "-journal"):
        return connect(path, "rw")  # a change of ours was cut short: opening the file takes it back
    if _size(path + "-wal"):
        return connect(path, "ro")
    return connect(path, "ro", immutable=True)


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _damage(connection: sqlite3.Connection, seconds: float) -> str | None:
    """The first thing found wrong within the time, as SQLite says it."""
    alarm = threading.Timer(seconds, connection.interrupt)
    alarm.daemon = True
    alarm.start()
    try:
        for table in ("meta", "room", "message"):
            (found,) = connection.execute(f"PRAGMA quick_check({table})").fetchone()
            if found != "ok":
                return " ".join(str(found).split())[:200]
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        alarm.cancel()
        alarm.join()
    return None
