"""From a path to a database that can be written, or to one line that says why not.

Opening:

1. Everything that can be refused is refused before anything is written.
2. A new database appears under its name when it is whole, or not at all.
3. Epoch and version are settled before the file is used with a write-ahead log. SQLite plays a log into
   whatever file lies beside it, so a file that has no log yet must not look as if it had one.

Who may read the files of a database, whatever the umask is:

4. A file that is made here has the mode 0600 from its first moment on.
5. A database that everybody may read or write had its mode from the umask of an earlier version: it becomes
   0600 as well. One that is open to its group alone (0640, 0660) was made so on purpose, and stays.
6. SQLite makes the write-ahead log and its index with the mode of the database. If these files, or that of
   the lock, are there already, the same mode is set here.

One server for a database:

7. The lock is on a file beside the database. It is the kernel's and goes with the process, however that ends.
   The file stays and means nothing.
8. The database itself is not locked: closing any descriptor of it would drop the locks that SQLite has.

What is looked at before anything is written (is this file ours, of a form that we know, and whole?):

9. Nothing here changes a byte of a database. It is opened read-only, and as an immutable file if no
   write-ahead log lies beside it.
10. The look has a deadline, whatever the size of the file. It covers the header, the length of the file, the
    tables of rooms and settings, and then as much of the messages as the rest of the time allows. Of a file
    of 10 GB that is a part. Damage beyond it is found when it is read, and stops neither the start nor the
    traffic.
11. A write-ahead log is taken for the file's own, unless the file was never opened with one: SQLite would
    play the log of a removed database into the one that was put in its place.

It doesn't know what the messages say, nor what becomes of them.
"""

import fcntl
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import NamedTuple

from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event
from chatroom.engines.sqlite.schema import (
    APPLICATION_ID,
    VERSION,
    connect,
    error_code,
    error_name,
    migrate,
    settle_epoch,
    sync_fully,
    use_write_ahead_log,
    version_of,
)

# Modes

PRIVATE = 0o600
_OTHERS = 0o007
_BESIDE = ("-wal", "-shm", "-lock")


def make_private(path: str) -> None:
    """Make an empty file that only its owner may read. Raises OSError: FileExistsError if it is there."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        os.fchmod(fd, PRIVATE)  # a strange umask takes even the owner's rights
    finally:
        os.close(fd)


def mode_of(path: str) -> int:
    """The mode of a file."""
    return stat.S_IMODE(os.stat(path).st_mode)


def close_to_others(path: str) -> None:
    """Rules 5 and 6, for a database that is there. A file of another owner is left as it is."""
    was = mode_of(path)
    if was & _OTHERS:
        with suppress(PermissionError):
            os.chmod(path, PRIVATE)
        log_event(logging.WARNING, "database_mode", was=f"{was:04o}", now=f"{mode_of(path):04o}")
    now = mode_of(path)
    for suffix in _BESIDE:
        with suppress(FileNotFoundError, PermissionError):
            if mode_of(path + suffix) != now:
                os.chmod(path + suffix, now)


# The lock

SUFFIX = "-lock"


class FileLock:
    """The lock on a database (rules 7 and 8), held from its making to `release`."""

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
        """Let other processes have the lock."""
        os.close(self._fd)


# The look

CHECK_SECONDS = 0.5
_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_WAL_MODE = 2


def check_header(path: str, *, write: bool = True) -> bool:
    """Look at the first bytes of a file. False if it is missing or empty. Raises StartError."""
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
    """Rule 11. Raises StartError."""
    wal = path + "-wal"
    if _size(wal):
        raise StartError(
            f"{path} {what}, but {wal} is still there: put back the database that it belongs to, "
            "or move it away"
        )


def check_content(path: str, seconds: float = CHECK_SECONDS) -> None:
    """Look into a database that has passed `check_header`, for `seconds` at most.

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
    """The first damage found within the time, in SQLite's words; None if none was found."""
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


# Opening


class Opened(NamedTuple):
    """An open database. `path` is the real one, without symbolic links."""

    path: str
    lock: FileLock
    connection: sqlite3.Connection
    epoch: str


def open_database(name: str, new_epoch: Callable[[], str], *, renew: bool) -> Opened:
    """Open or make the database `name`. Raises StartError: then the file is left as it was."""
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
