"""The engine with a disk: an Engine on one SQLite file.

1. Nothing here touches SQLite, but for the methods that the one thread calls. The engine hands jobs to that
   thread, which answers by calls.
2. What the event loop has to know without waiting comes from the thread as well, in the thread's order: the
   lowest id kept of each room in use, and why nothing can be stored now.

It doesn't know SQL, nor what a failure of the disk means.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import trio

from chatroom.core.errors import Replaced, Trimmed, Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import (
    Draft,
    Head,
    Message,
    Moderated,
    Outcome,
    Page,
    Record,
    Retain,
    RoomSummary,
    Unknown,
    text_bytes,
)
from chatroom.core.sanctions import Sanction
from chatroom.engines.engine import READ_BYTES, Feed
from chatroom.engines.sqlite.opening import open_database
from chatroom.engines.sqlite.retention import Retention
from chatroom.engines.sqlite.store import Store
from chatroom.engines.sqlite.worker import Job, Worker

READ_SECONDS = 10.0
"""Seconds that a reader waits for the thread, which a commit may hold up, and so the disk."""
LOOK_SECONDS = 3.0
"""Seconds that a newcomer waits for the thread, to hear whether the room is closed to it."""
SUMMARIES = 200
"""Rooms that the thread looks at in one piece of work."""
CLOSE_SECONDS = 2.0
"""Seconds that the end may wait for the thread, and so for the disk."""
MEASURE_SECONDS = 1.0
"""Seconds between two looks at the sizes of the files, while messages come."""


class SqliteEngine:
    """An Engine whose promises outlive the process and the power."""

    durable = True
    shared = False

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
        self._sizes = (0, 0)  # replaced by the thread
        self._measured_at = 0.0
        self._firsts: dict[str, int] = {}  # of the rooms in use
        self._worker: Worker | None = None
        self._room_openers: trio.Nursery | None = None
        self._store: Store | None = None
        self._retention: Retention | None = None

    async def serve(
        self,
        _feed: Feed,
        /,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See Engine. The database is closed at the end, unless the disk takes longer than CLOSE_SECONDS."""
        self._worker = worker = Worker("chatroom-db", self._now)
        try:
            await worker.call(self._open)
            async with trio.open_nursery() as self._room_openers:
                task_status.started()
                await worker.wait_ended()
        finally:
            self._room_openers = None
            worker.stop(self._close)
            with trio.move_on_after(CLOSE_SECONDS, shield=True) as closing:
                await worker.wait_ended()
            if closing.cancelled_caught:
                log_event(logging.ERROR, "log_not_closed")

    def troubles(self) -> tuple[str, ...]:
        """See Engine."""
        trouble = None if self._store is None else self._store.trouble
        return () if trouble is None else (trouble,)

    def sizes(self) -> tuple[int, int]:
        """See Engine. While messages come they are a second old at most."""
        return self._sizes

    @property
    def statistics(self) -> None:
        """See Engine."""
        return None

    def open(self, room: str, opened: Callable[[Head | Exception], None]) -> None:
        """See Engine."""
        if self._room_openers is None:
            opened(Unavailable("the log is closed"))
        else:
            self._room_openers.start_soon(self._open_room, room, opened)

    async def _open_room(self, room: str, opened: Callable[[Head | Exception], None]) -> None:
        """The task that opens one room."""
        self._firsts[room] = 1
        try:
            head, trimmed = await self._thread.call(lambda: self._where(room), patience=READ_SECONDS)
        except Exception as error:
            del self._firsts[room]
            opened(error)
        else:
            self._trimmed(room, trimmed + 1)
            opened(head)

    def release(self, room: str) -> None:
        """See Engine."""
        del self._firsts[room]

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """See Engine."""

        def answered(outcomes: list[Outcome] | Exception) -> None:
            unknown = isinstance(outcomes, Unavailable)  # the thread has ended
            committed([Unknown()] * len(drafts) if unknown else outcomes)

        self._thread.submit(Job(lambda: self._append(drafts), answered), urgent=True)

    async def head(self, room: str) -> Head:
        """See Engine."""
        head, _ = await self._thread.call(lambda: self._where(room), patience=READ_SECONDS)
        return head

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        """See Engine."""
        try:
            return await self._thread.call(
                lambda: self._store_of(room, epoch).read(room, after, upto, limit, max_bytes),
                patience=READ_SECONDS,
            )
        except Trimmed as gone:
            self._trimmed(room, gone.first)  # `first_id` may not know it yet
            raise

    async def history(
        self,
        room: str,
        epoch: str,
        *,
        before: int | None,
        after: int | None,
        upto: int,
        limit: int,
        max_bytes: int = READ_BYTES,
    ) -> Page:
        """See Engine. Where messages are far apart, commits go between the pieces of the work."""
        found: list[Message] = []
        upward, size = after is not None, 0
        while True:
            piece = partial(
                self._history,
                *(room, epoch),
                before=before,
                after=after,
                upto=upto,
                limit=limit - len(found),
                max_bytes=max_bytes - size,
            )
            page, go_on = await self._thread.call(piece, patience=READ_SECONDS)
            found += page.messages if upward else reversed(page.messages)
            if go_on is None:
                return Page(tuple(found if upward else reversed(found)), page.more)
            size = sum(map(text_bytes, found))
            before, after = (None, go_on) if upward else (go_on, None)

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        return await self._thread.call(
            lambda: self._store_of(room, epoch).moderations(room, upto, limit), patience=READ_SECONDS
        )

    async def sanctions(self, room: str) -> tuple[Sanction, ...]:
        """See Engine."""
        return await self._thread.call(
            lambda: self._opened.sanctions(room, self._now_ms()), patience=LOOK_SECONDS
        )

    async def summaries(self) -> list[RoomSummary]:
        """See Engine."""
        found: list[RoomSummary] = []
        after = ""
        while some := await self._thread.call(partial(self._summaries, after), patience=READ_SECONDS):
            after, summaries = some
            found += summaries
        return found

    def first_id(self, room: str) -> int:
        """See Engine."""
        return self._firsts[room]

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """See Engine."""

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """See Engine."""

    @property
    def _thread(self) -> Worker:
        assert self._worker is not None, "serve has started"
        return self._worker

    def _trimmed(self, room: str, first: int) -> None:
        """The lowest id kept of `room` is known to be `first` or a later one."""
        if (known := self._firsts.get(room)) is not None:
            self._firsts[room] = max(known, first)

    # In the thread

    @property
    def _opened(self) -> Store:
        assert self._store is not None, "the database has been opened"
        return self._store

    def _store_of(self, room: str, epoch: str) -> Store:
        if self._opened.epoch_of(room) != epoch:
            raise Replaced
        return self._opened

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
        self._thread.attend(Upkeep(self._store, self._retention, now=self._now, measure=self._measure))
        self._measure()

    def _measure(self) -> None:
        self._measured_at = self._now()
        self._sizes = self._opened.sizes()

    def _close(self) -> None:
        if self._retention is not None:
            self._retention.close()
        if self._store is not None:
            self._store.close()

    def _where(self, room: str) -> tuple[Head, int]:
        """The head of a room, and the id below which its log is trimmed."""
        store = self._opened
        extent = store.extent(room)
        sanctions = store.sanctions(room, self._now_ms())
        return Head(extent.epoch or store.epoch, extent.last, extent.others, sanctions), extent.trimmed

    def _history(self, room: str, epoch: str, **what: Any) -> tuple[Page, int | None]:
        return self._store_of(room, epoch).history(room, **what)

    def _summaries(self, after: str) -> tuple[str, list[RoomSummary]] | None:
        """Some rooms behind the name `after`, and the last of their names; None if there are none."""
        names = self._opened.rooms_after(after, SUMMARIES)
        return (names[-1], self._opened.summaries(names)) if names else None

    def _append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        outcomes = self._opened.append(drafts)
        assert self._retention is not None
        self._retention.written({draft.room for draft in drafts})
        if self._now() >= self._measured_at + MEASURE_SECONDS:
            self._measure()
        return outcomes


class Upkeep:
    """The chores of the thread (see Chores): find the way back from trouble, else tidy up and trim."""

    def __init__(
        self, store: Store, retention: Retention, *, now: Callable[[], float], measure: Callable[[], None]
    ) -> None:
        """`measure` is called after each piece of work."""
        self._store = store
        self._retention = retention
        self._now = now
        self._measure = measure

    @property
    def due(self) -> float:
        """When there is something to do."""
        if self._store.trouble is not None:
            return self._store.due
        return min(self._store.due, self._retention.due)

    def work(self) -> None:
        """Do a little of what is due."""
        if self._store.work() and self._retention.due <= self._now():
            self._retention.step()
        self._measure()
