"""One log that survives trouble: what a failure means for the drafts, and the way back from it.

1. If the store fails, all drafts of the batch are Unknown, and the store is in trouble. While it is, nothing
   is written but the way back, which is tried at the next append, and by itself now and then.
2. Full and busy are certain: SQLite has rolled everything back. After any other failure the commit may be
   there or not, whatever SQLite says now. So the database is opened again, which plays the write-ahead log.
   The log is moved into the database, so that it stands on a sync that has succeeded. Then the append is
   undone: records beyond the last ids that were ever told are removed, and those that it replaced are put
   back. No client was told of it: the senders were answered `unavailable`, and if a sender sends such a
   message again with the same `cid`, it gets the id that is next then. (If the process ends before that, the
   message is there at the next start, under the id that no client knew. Then it is shown, and the same `cid`
   finds it.)
3. The way back ends with a write of some size that succeeds: so a full disk is seen to have room again.
4. Reading goes on while there is a database to read. What can't be read is Unavailable, and no trouble.
5. When nothing has been written for a moment, a write-ahead log of some size is moved into the database and
   emptied. A program that reads stands in the way of that; then it is tried again later. A log that may have
   a text that was edited, deleted or trimmed is emptied in any case, a moment after that; so is one that is
   there at the start.
6. Where pages were split, SQLite leaves copies of rows in unused parts of pages. So a database of up to
   SMALL_BYTES is written anew at such a moment, if a text in it was edited or deleted, but seldom.

It doesn't know threads or tasks, nor which messages are old.
"""

import logging
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from chatroom.core.errors import Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import Draft, Moderated, Outcome, Page, Record, RoomSummary, Unknown
from chatroom.core.sanctions import Sanction
from chatroom.engines.engine import READ_BYTES
from chatroom.engines.sqlite.log import Extent, Log, Undo
from chatroom.engines.sqlite.opening import Opened
from chatroom.engines.sqlite.schema import (
    BUSY_SECONDS,
    connect,
    error_code,
    error_name,
    note_time,
    noted_time,
    sync_fully,
    transaction,
    use_write_ahead_log,
)

RETRY_SECONDS = 0.5
"""Seconds between two tries of the way back."""
PROBE_BYTES = 256 * 1024
IDLE_SECONDS = 5.0
"""Seconds without a write after which a write-ahead log is emptied."""
SMALL_BYTES = 64 * 1024 * 1024
"""The size, in bytes, up to which a database is written anew: 0.5 s of the thread's time at most."""
ANEW_SECONDS = 600.0
"""Seconds between two such writings at least."""
LARGE_BYTES = 1024 * 1024
"""The size, in bytes, from which on a write-ahead log is emptied when nothing is written."""
_CERTAIN = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program has locked the database",
    sqlite3.SQLITE_LOCKED: "another program has locked the database",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
    sqlite3.SQLITE_READONLY: "the database can't be written",
    sqlite3.SQLITE_IOERR: "the disk fails",
}


def _words(error: Exception) -> str:
    """What is wrong, for the operator."""
    if isinstance(error, Unavailable):
        return str(error)
    return f"{_WORDS.get(error_code(error), 'the log fails')} ({error_name(error)})"


def _identity(path: str) -> tuple[int, int]:
    """Which file that is, whatever its name. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


class Store:
    """The log of an open database, used by one thread."""

    def __init__(self, opened: Opened, now: Callable[[], float]) -> None:
        self._path = opened.path
        self._file = _identity(opened.path)
        self._epoch = opened.epoch
        self._lock = opened.lock
        self._now = now
        self._log: Log | None = Log(opened.connection)
        self._doubtful: Undo | None = None  # of a commit of unknown outcome
        # Since when the write-ahead log may have a text that is gone. One that is there already may, too.
        self._erased_since = now() if self.sizes()[1] else None
        self._retry_at = 0.0
        self._leaves_copies = False  # of a text that is gone, perhaps, in unused parts of pages
        self._anew_at = -math.inf
        self._shrink_at = math.inf
        self.trouble: str | None = None
        """Why nothing can be stored now; None if something can."""

    def close(self) -> None:
        """Close the database and let other processes have it."""
        if self._log is not None:
            with suppress(sqlite3.Error):
                self._log.close()
        self._lock.release()

    @property
    def epoch(self) -> str:
        """The epoch of the file."""
        return self._epoch

    def epoch_of(self, room: str) -> str:
        """The epoch of a room. Raises Unavailable."""
        return self.extent(room).epoch or self._epoch

    # Writing

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See Engine."""
        if self.heal():
            self._shrink_at = self._now() + IDLE_SECONDS
            log = self._in_use()
            try:
                outcomes = log.append(drafts)
            except Exception as error:
                self._fail(error, log.undo)
            else:
                if log.undo.replaced:
                    self._leaves_copies = True
                    self._erased()
                return outcomes
        return [Unknown()] * len(drafts)

    def trim(self, firsts: Mapping[str, int]) -> bool:
        """Remove from each room the messages with ids below its first.

        Return whether that is known to be done.
        """
        if firsts and self.trouble is None:
            self._shrink_at = self._now() + IDLE_SECONDS
            try:
                self._in_use().trim(firsts)
            except (sqlite3.Error, MemoryError) as error:
                self._fail(error, Undo())
            else:
                self._erased()
        return self.trouble is None

    def _erased(self) -> None:
        """The write-ahead log may have a text that is gone (rule 5)."""
        if self._erased_since is None:
            self._erased_since = self._now()

    def note_time(self, time: int) -> bool:
        """Note the time of day, by which messages grow old, in milliseconds. Return whether it was done."""
        if self.trouble is None:
            try:
                connection = self._in_use().connection
                with transaction(connection):
                    note_time(connection, time)
            except (sqlite3.Error, MemoryError) as error:
                self._fail(error, Undo())
        return self.trouble is None

    def _fail(self, error: Exception, undo: Undo) -> None:
        """Rules 1 and 2."""
        code = error_code(error)
        self.trouble = _words(error)
        log_event(logging.ERROR, "log_failed", reason=self.trouble)
        if code not in _CERTAIN:
            self._doubtful = undo

    # The way back

    def heal(self) -> bool:
        """Try the way back, if it is needed and due. Return whether the store can be written."""
        if self.trouble is None:
            return True
        if self._now() < self._retry_at:
            return False
        try:
            if self._doubtful is not None:
                self._look_up_again(self._doubtful)
            self._probe()
        except (sqlite3.Error, OSError, MemoryError, Unavailable) as error:
            self.trouble = _words(error)
            self._retry_at = self._now() + RETRY_SECONDS
            if self._doubtful is None and error_code(error) not in _CERTAIN:
                self._doubtful = Undo()
            return False
        log_event(logging.WARNING, "log_recovered", reason=self.trouble)
        self.trouble = None
        return True

    def _look_up_again(self, undo: Undo) -> None:
        """Rule 2. Raises what SQLite raises, OSError, Unavailable."""
        if self._log is not None:
            old, self._log = self._log, None
            with suppress(sqlite3.Error):
                old.close()
        if _identity(self._path) != self._file:
            raise Unavailable("another file is in the place of the database")
        connection = connect(self._path, "rw")
        try:
            sync_fully(connection)
            use_write_ahead_log(connection)
            log = Log(connection)
            self._settle(connection)
            log.take_back(undo)
        except BaseException:
            connection.close()
            raise
        self._log = log
        self._doubtful = None

    @staticmethod
    def _settle(connection: sqlite3.Connection) -> None:
        """Move all of the write-ahead log into the database.

        Raises Unavailable if another program prevents it.
        """
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unavailable("the disk has failed; a program that reads the database stands in the way back")

    def _probe(self) -> None:
        """Rule 3. Raises sqlite3.Error."""
        connection = self._in_use().connection
        with transaction(connection):
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
        with transaction(connection):
            connection.execute("DELETE FROM meta WHERE name = 'probe'")

    # The write-ahead log

    @property
    def due(self) -> float:
        """When `work` has something to do, in the thread's time; infinity for not before the next write."""
        if self.trouble is not None:
            return self._retry_at
        erase_at = math.inf if self._erased_since is None else self._erased_since + IDLE_SECONDS
        return min(self._shrink_at, erase_at)

    def work(self) -> bool:
        """Do what is due. Return whether the store can be written."""
        if not self.heal():
            return False
        now = self._now()
        if self._erased_since is not None and now >= self._erased_since + IDLE_SECONDS:
            self._erased_since = None if self._empty_log() else now
        if now >= self._shrink_at:
            done = self._shrink()
            again = self._anew_at if self._copies_can_go else math.inf
            self._shrink_at = again if done else now + IDLE_SECONDS
        return True

    def _shrink(self) -> bool:
        """Rules 5 and 6. Return whether it is done. A failure comes again at a commit, and is told then."""
        if self._copies_can_go and self._now() >= self._anew_at:
            if not self._write_anew():
                return False
            self._leaves_copies = False
            self._anew_at = self._now() + ANEW_SECONDS
        elif self.sizes()[1] < LARGE_BYTES:
            return True
        return self._empty_log()

    @property
    def _copies_can_go(self) -> bool:
        return self._leaves_copies and self.sizes()[0] <= SMALL_BYTES

    def _write_anew(self) -> bool:
        """Write the whole database anew, page by page. Return whether that was done."""
        with self._without_waiting() as connection:
            connection.execute("PRAGMA temp_store = MEMORY")  # no other file gets a copy of it
            connection.execute("VACUUM")
            return True
        return False

    def _empty_log(self) -> bool:
        """Move the write-ahead log into the database and empty it. Return whether that was done."""
        with self._without_waiting() as connection:
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False

    @contextmanager
    def _without_waiting(self) -> Iterator[sqlite3.Connection]:
        """The connection, which waits for no other program meanwhile. Errors of SQLite's end the block."""
        connection = self._in_use().connection
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                yield connection
            finally:
                connection.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")

    def sizes(self) -> tuple[int, int]:
        """Bytes of the database and of its write-ahead log, on the disk."""
        found = []
        for name in (self._path, self._path + "-wal"):
            try:
                found.append(os.stat(name).st_size)
            except OSError:
                found.append(0)
        return found[0], found[1]

    # Reading

    def extent(self, room: str) -> Extent:
        """Where the room's log begins and ends. Raises Unavailable."""
        with self._reading() as log:
            return log.extent(room)

    def read(self, room: str, after: int, upto: int, limit: int, max_bytes: int = READ_BYTES) -> list[Record]:
        """See Engine. Raises Trimmed, Unavailable."""
        with self._reading() as log:
            return log.read(room, after, upto, limit, max_bytes)

    def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int, max_bytes: int
    ) -> tuple[Page, int | None]:
        """See Engine and Log."""
        with self._reading() as log:
            return log.history(room, before=before, after=after, upto=upto, limit=limit, max_bytes=max_bytes)

    def moderations(self, room: str, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        with self._reading() as log:
            return log.moderations(room, upto, limit)

    def sanctions(self, room: str, now: int) -> tuple[Sanction, ...]:
        """Those in force in a room, at `now` in milliseconds. Raises Unavailable."""
        with self._reading() as log:
            return log.sanctions(room, now)

    def summaries(self, rooms: Sequence[str]) -> list[RoomSummary]:
        """See Engine, of these rooms."""
        with self._reading() as log:
            return log.summaries(rooms)

    def first_since(self, room: str, ts: int, limit: int) -> int:
        """See Log. Raises Unavailable."""
        with self._reading() as log:
            return log.first_since(room, ts, limit)

    def noted_time(self) -> int | None:
        """The time of day that was noted last, in milliseconds; None if none was. Raises Unavailable."""
        with self._reading() as log:
            return noted_time(log.connection)

    def rooms_after(self, room: str, limit: int) -> list[str]:
        """See Log. Raises Unavailable."""
        with self._reading() as log:
            return log.rooms_after(room, limit)

    @contextmanager
    def _reading(self) -> Iterator[Log]:
        if self._log is None:
            raise Unavailable(self.trouble)
        try:
            yield self._log
        except (sqlite3.Error, MemoryError) as error:
            log_event(logging.ERROR, "log_unreadable", reason=error_name(error))
            raise Unavailable(error_name(error)) from None

    def _in_use(self) -> Log:
        """The log, while there is no trouble (rule 1)."""
        assert self._log is not None
        return self._log
