"""One room of a database: read beside a running server, or written into a database that no server uses.

Reading:

1. The database is opened read-only, and read as it stood at one moment, in one transaction. Nothing of it is
   moved or changed. While it is read, the server's write-ahead log grows by what the server writes.
2. What is read has no hole.

Writing:

3. The database is opened as a server opens it, so that no server runs meanwhile; or it is new, and appears
   when it is whole.
4. The room is new there, or has nothing left of its own: neither records nor sanctions. It gets an epoch of
   its own, so no client takes its ids for those of another log.
5. All is written in one transaction. What can't be is a ValueError, and nothing is kept.
6. Records get new ids, dense from 1 on. The ids in changes are led over to them. A change of a message that
   isn't there is left out.
7. A text is where it is by `changes`: in the message as it is now, and in the record that brought it.

It doesn't know the form of the file, nor the command that asks.
"""

import os
import sqlite3
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from chatroom.core.errors import StartError
from chatroom.core.messages import Deleted, Edited, Message, Moderated, Record, RoomLog
from chatroom.core.sanctions import Sanction
from chatroom.engines import changes
from chatroom.engines.sqlite.backup import check_source, publishing, sanctions_of
from chatroom.engines.sqlite.log import INSERT, Log
from chatroom.engines.sqlite.opening import check_header, open_database
from chatroom.engines.sqlite.schema import (
    VERSION,
    connect,
    epoch_of,
    error_name,
    migrate,
    set_room_epoch,
    sync_fully,
    transaction,
    version_of,
)

_PIECE, _PIECE_BYTES = 500, 256 * 1024
"""Records that are read at a time, and about how many bytes of text."""
_CACHE_KIB = 16 * 1024
"""Memory for pages: the `cid`s of a large room come in no order."""

# Reading


class RoomReader:
    """A room, as it stood when it was opened."""

    def __init__(self, log: RoomLog, records: Log) -> None:
        self.log = log
        self._records = records

    def pieces(self) -> Iterator[list[Record]]:
        """All records, some at a time. Raises sqlite3.Error."""
        after = self.log.first - 1
        while after < self.log.last:
            piece = self._records.read(self.log.room, after, after + _PIECE, _PIECE, _PIECE_BYTES)
            yield piece
            after = piece[-1].id


@contextmanager
def reading_room(name: str, room: str) -> Iterator[RoomReader]:
    """A room of the database `name`. Raises StartError, also if the room isn't there."""
    path = os.path.realpath(name)
    check_source(path)
    try:
        with closing(connect(path, "ro")) as connection:
            connection.execute("BEGIN")
            if version_of(connection) != VERSION:  # the first reading fixes the moment
                raise StartError(
                    f"{path} was written by an earlier version of chatroom: start this version on it first"
                )
            records = Log(connection)
            extent = records.extent(room)
            if extent.key is None:
                raise StartError(f"there is no room {room!a} in {path}")
            epoch = extent.epoch or epoch_of(connection) or ""
            log = RoomLog(
                *(room, epoch, extent.trimmed + 1, extent.last, extent.others), sanctions_of(connection, room)
            )
            yield RoomReader(log, records)
    except sqlite3.Error as error:
        raise StartError(f"{path} can't be read ({_why(error)})") from None


def _why(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return str(error) if error_name(error) == "DatabaseError" else error_name(error)
    return getattr(error, "strerror", None) or str(error)


# Writing


class _Ids:
    """Which new id each old one has got. Both ascend, so only the gaps are remembered."""

    def __init__(self) -> None:
        self._old, self._new = array("q"), array("q")  # where each run of ids without a gap begins
        self._next_old = 0
        self.last = 0

    def add(self, old: int) -> int:
        """The next new id."""
        self.last += 1
        if old != self._next_old:
            self._old.append(old)
            self._new.append(self.last)
        self._next_old = old + 1
        return self.last

    def find(self, old: int) -> int | None:
        """The new id of an old one; None if it isn't there."""
        run = bisect_right(self._old, old) - 1
        if run < 0:
            return None
        new = self._new[run] + old - self._old[run]
        end = self._new[run + 1] if run + 1 < len(self._new) else self.last + 1
        return new if new < end else None


class Marks(NamedTuple):
    """The old ids of what changed a message last, as the message says, until these records come."""

    edited: int | None
    deleted: int | None


class RoomWriter:
    """A room that is being written. Its ids in the file are the old ones here."""

    def __init__(self, connection: sqlite3.Connection, room: str, epoch: str) -> None:
        """Raises StartError if the room has something already."""
        self._connection = connection
        self._room = room
        self._key = _begin_room(connection, room)
        set_room_epoch(connection, room, epoch)
        connection.execute(
            "CREATE TEMP TABLE mark (id INTEGER PRIMARY KEY, old INTEGER, edited INTEGER, deleted INTEGER)"
        )
        self._ids = _Ids()
        self.messages = self.others = 0

    def add(self, record: Record) -> bool:
        """Write a record; False if it changes a message that isn't there. Raises ValueError."""
        match record:
            case Message():
                self._add_message(record)
                self.messages += 1
                return True
            case Edited() | Deleted():
                about = self._ids.find(record.about)
                if about is None:
                    return False
                self._add_change(record, about)
            case Moderated():
                self._insert(record._replace(id=self._ids.add(record.id)))
        self.others += 1
        return True

    def end(self, sanctions: tuple[Sanction, ...]) -> None:
        """Everything has come. Raises ValueError if a message speaks of a change that hasn't."""
        waits = self._connection.execute("SELECT old, edited, deleted FROM mark LIMIT 1").fetchone()
        if waits is not None:
            old, edited, deleted = waits
            raise ValueError(
                f"the message {old} was changed by the record {deleted or edited}, which isn't there"
            )
        self._connection.execute("UPDATE room SET others = ? WHERE key = ?", (self.others, self._key))
        self._connection.executemany(
            "INSERT INTO sanction VALUES (?, ?, ?, ?, ?, ?)", [(self._room, *each) for each in sanctions]
        )

    def _add_message(self, message: Message) -> None:
        number = self._ids.add(message.id)
        self._insert(message._replace(id=number, edited=None, deleted=None))
        if message.edited is not None or message.deleted is not None:
            self._connection.execute(
                "INSERT INTO mark VALUES (?, ?, ?, ?)", (number, message.id, message.edited, message.deleted)
            )

    def _add_change(self, change: Edited | Deleted, about: int) -> None:
        message = self._message(about)
        marks = self._marks(about)
        if isinstance(change, Edited):
            last = marks.deleted is None and marks.edited == change.id
            fits = marks.deleted is not None or (marks.edited is not None and change.id <= marks.edited)
            fits = fits and message.username == change.username
            fits = fits and change.text == (message.text if last else "")
        else:
            last = fits = marks.deleted == change.id and message.username == change.author
        if not fits:
            raise ValueError(f"it doesn't fit the message {change.about}")
        replaces = message.edited or message.id
        stored = change._replace(id=self._ids.add(change.id), about=about, replaces=replaces)
        self._insert(stored)
        changed = changes.as_it_is(message, stored)._replace(text=message.text)
        self._connection.execute(
            "UPDATE message SET rest = ? WHERE room = ? AND id = ?",
            (changes.rest_of(changed), self._key, about),
        )
        if last:
            self._connection.execute("DELETE FROM mark WHERE id = ?", (about,))

    def _message(self, number: int) -> Message:
        """Raises ValueError if the record is no message."""
        row = self._connection.execute(
            "SELECT id, ts, username, text, cid, rest FROM message WHERE room = ? AND id = ?",
            (self._key, number),
        ).fetchone()
        record = changes.record_of(*row)
        if not isinstance(record, Message):
            raise ValueError("it changes what is no message")  # noqa: TRY004  (the file's fault)
        return record

    def _marks(self, number: int) -> Marks:
        row = self._connection.execute("SELECT edited, deleted FROM mark WHERE id = ?", (number,)).fetchone()
        return Marks(None, None) if row is None else Marks(*row)

    def _insert(self, record: Record) -> None:
        try:
            self._connection.execute(INSERT, (self._key, *record[:5], changes.rest_of(record)))
        except sqlite3.IntegrityError:
            raise ValueError("the same name has used its cid before") from None


def _begin_room(connection: sqlite3.Connection, room: str) -> int:
    """The key of the room, which has no records and begins at 1. Raises StartError (rule 4)."""
    found = connection.execute("SELECT key FROM room WHERE name = ?", (room,)).fetchone()
    used = connection.execute(
        "SELECT 1 FROM sanction WHERE room = ? UNION SELECT 1 FROM message WHERE room = ? LIMIT 1",
        (room, -1 if found is None else found[0]),
    ).fetchone()
    if used is not None:
        raise StartError(f"room {room!a} is there already: choose another name by --room")
    connection.execute("DELETE FROM room WHERE name = ?", (room,))
    key = connection.execute("INSERT INTO room (name, trimmed) VALUES (?, 0)", (room,)).lastrowid
    assert key is not None
    return key


@contextmanager
def writing_room(name: str, room: str, new_epoch: Callable[[], str]) -> Iterator[RoomWriter]:
    """A room that is written into the database `name`; the end of the block keeps it. Raises StartError."""
    path = os.path.realpath(name)
    try:
        with _writing(path, new_epoch) as connection, transaction(connection):
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            yield RoomWriter(connection, room, new_epoch())
    except (sqlite3.Error, OSError) as error:
        raise StartError(f"{path} can't be written ({_why(error)})") from None


@contextmanager
def _writing(path: str, new_epoch: Callable[[], str]) -> Iterator[sqlite3.Connection]:
    """Rule 3."""
    if check_header(path) or os.path.lexists(path):
        opened = open_database(path, new_epoch, renew=False)
        try:
            with closing(opened.connection):
                yield opened.connection
        finally:
            opened.lock.release()
        return
    with publishing(path) as draft, closing(connect(draft, "rw")) as connection:
        sync_fully(connection)
        migrate(connection)
        yield connection
