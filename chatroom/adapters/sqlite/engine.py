"""The engine with a disk: an Engine on one SQLite file.

1. Nothing here touches SQLite: it hands jobs to the one thread that does, and awaits what comes back.
2. What the event loop has to know without waiting comes from the thread as well, in the thread's order:
   the lowest id kept of each room in use, and why nothing can be stored now.
"""

import logging
import time
from collections.abc import Callable, Sequence

import trio

from chatroom.adapters.sqlite.opening import open_database
from chatroom.adapters.sqlite.retention import Retention
from chatroom.adapters.sqlite.store import Store
from chatroom.adapters.sqlite.worker import Worker
from chatroom.values.errors import Unavailable
from chatroom.values.journal import note
from chatroom.values.messages import Draft, Head, Message, Outcome, Page, Unknown
from chatroom.values.retain import Retain

READ_SECONDS = 10.0
"""How long whoever reads waits for the thread, which may be held up by a commit, and so by the disk."""
CLOSE_SECONDS = 2.0
"""How long the end may wait for the thread, and so for the disk."""


class SqliteEngine:
    """An Engine whose promises outlive the process and the power."""

    def __init__(
        self,
        path: str,
        new_epoch: Callable[[], str],
        *,
        renew_epoch: bool = False,
        retain: Retain | None = None,
        now: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`now` and `now_ms` are read by the thread, for its pauses and for the age of messages."""
        self._path = path
        self._new_epoch = new_epoch
        self._renew = renew_epoch
        self._retain = retain or Retain()
        self._now = now
        self._now_ms = now_ms
        self._firsts: dict[str, int] = {}  # of the rooms in use
        self._worker: Worker | None = None
        self._store: Store | None = None
        self._retention: Retention | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See Engine. The database is closed at the end, unless the disk takes longer than CLOSE_SECONDS."""
        self._worker = worker = Worker("chatroom-db", self._now)
        try:
            await worker.call(self._open)
            task_status.started()
            await worker.wait_ended()
        finally:
            worker.stop(self._close)
            with trio.move_on_after(CLOSE_SECONDS, shield=True) as closing:
                await worker.wait_ended()
            if closing.cancelled_caught:
                note(logging.ERROR, "log_not_closed")

    def troubles(self) -> tuple[str, ...]:
        """See Engine."""
        trouble = None if self._store is None else self._store.trouble
        return () if trouble is None else (trouble,)

    async def open(self, room: str) -> Head:
        """See Engine."""
        self._firsts[room] = 1
        try:
            epoch, trimmed, last = await self._thread.call(lambda: self._where(room), patience=READ_SECONDS)
        except BaseException:
            del self._firsts[room]
            raise
        self._trimmed(room, trimmed + 1)
        return Head(epoch, last)

    def release(self, room: str) -> None:
        """See Engine."""
        del self._firsts[room]

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See Engine."""
        try:
            return await self._thread.call(lambda: self._append(drafts), urgent=True)
        except Unavailable:
            return [Unknown()] * len(drafts)

    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        """See Engine."""
        return await self._thread.call(
            lambda: self._opened.read(room, after, upto, limit), patience=READ_SECONDS
        )

    async def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int
    ) -> Page:
        """See Engine."""
        return await self._thread.call(
            lambda: self._opened.history(room, before, after, upto, limit), patience=READ_SECONDS
        )

    def first_id(self, room: str) -> int:
        """See Engine."""
        return self._firsts[room]

    @property
    def _thread(self) -> Worker:
        assert self._worker is not None, "serve has started"
        return self._worker

    def _trimmed(self, room: str, first: int) -> None:
        """The lowest id kept of a room is known to be this or a later one."""
        if (known := self._firsts.get(room)) is not None:
            self._firsts[room] = max(known, first)

    # In the thread

    @property
    def _opened(self) -> Store:
        assert self._store is not None, "the database has been opened"
        return self._store

    def _open(self) -> None:
        opened = open_database(self._path, self._new_epoch, renew=self._renew)
        self._store = Store(opened, self._now)
        self._retention = Retention(
            self._store,
            self._retain,
            now=self._now,
            now_ms=self._now_ms,
            trimmed=lambda room, first: self._thread.post(self._trimmed, room, first),
        )
        self._thread.attend(Upkeep(self._store, self._retention))

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _where(self, room: str) -> tuple[str, int, int]:
        extent = self._opened.extent(room)
        return self._opened.epoch, extent.trimmed, extent.last

    def _append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        outcomes = self._opened.append(drafts)
        assert self._retention is not None
        self._retention.written({draft.room for draft in drafts})
        return outcomes


class Upkeep:
    """What the thread does unasked (see Chores): find the way back from trouble, else trim."""

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self._retention = retention

    @property
    def due(self) -> float:
        """When there is something to do."""
        return self._retention.due if self._store.trouble is None else self._store.retry_at

    def work(self) -> None:
        """Do a little of it."""
        if self._store.heal():
            self._retention.step()
