"""All of a database: read for a copy into a store of several nodes, or written as a copy out of one.

1. A database is taken as a server takes it: locked, so that none runs meanwhile, looked at, led forward. So
   its rooms go on in the store under the epoch that they have here, and a backup gets one of its own first.
2. What is read has no hole: a damaged database isn't copied.
3. A new database is written in one transaction, and appears under its name when it is whole.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from chatroom.core.copies import RoomLog
from chatroom.core.errors import StartError
from chatroom.core.messages import Message
from chatroom.engines.sqlite.backup import check_source
from chatroom.engines.sqlite.connecting import connect, error_name, sync_fully
from chatroom.engines.sqlite.log import INSERT_MESSAGE, Log
from chatroom.engines.sqlite.opening import open_database
from chatroom.engines.sqlite.publishing import check_free, publishing
from chatroom.engines.sqlite.schema import migrate, set_room_epoch, transaction

_PAGE = 1000


class SourceDatabase:
    """A database that is read as a whole."""

    def __init__(self, name: str, new_epoch: Callable[[], str]) -> None:
        """Raises StartError, also where a server uses it."""
        check_source(os.path.realpath(name))
        opened = open_database(name, new_epoch, renew=False)
        self._path = opened.path
        self._lock = opened.lock
        self._epoch = opened.epoch
        self._log = Log(opened.connection)

    def close(self) -> None:
        """Let others have it."""
        self._log.close()
        self._lock.release()

    def rooms(self) -> list[RoomLog]:
        """All rooms in which anything was ever said, in the order of their names. Raises StartError."""
        found: list[RoomLog] = []
        with self._reading():
            name = ""
            while names := self._log.rooms_after(name, _PAGE):
                for name in names:
                    extent = self._log.extent(name)
                    epoch = extent.epoch or self._epoch
                    found.append(RoomLog(name, epoch, extent.trimmed + 1, extent.last))
        return found

    def read(self, room: str, after: int, limit: int, max_bytes: int) -> list[Message]:
        """The messages after an id, at most so many, ending with the one that makes `max_bytes` of text.

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
        """What is added from here on belongs to this room."""
        self._key = self._connection.execute(
            "INSERT INTO room (name, trimmed) VALUES (?, ?)", (log.room, log.first - 1)
        ).lastrowid
        set_room_epoch(self._connection, log.room, log.epoch)

    def add(self, messages: Sequence[Message]) -> None:
        """Add messages, dense and ascending."""
        self._connection.executemany(INSERT_MESSAGE, [(self._key, *message) for message in messages])


@contextmanager
def new_database(name: str) -> Iterator[NewDatabase]:
    """A database that is there at the end of the block. Raises StartError.

    Its rooms have epochs of their own; it gets one for others when it is first opened.
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
