"""The engine without a disk: a bounded log per room that lives as long as the process.

1. A room keeps its newest `per_room` messages, and all rooms together `total_bytes`.
2. Past the total, whole rooms that nobody uses go first, the one used longest ago before others. Then go the
   oldest messages of the room that was written longest ago.
3. A room where nothing was stored leaves nothing behind.
4. Each time a log is given up, later rooms get a new epoch, so that a stale id is never taken for a valid
   one. Rooms that never stored anything can be freed and come back under the same epoch.
5. Sanctions outlive the log of their room, since memory that runs short must let nobody back in.

It doesn't know who uses a room, only whether anybody does.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

import trio

from chatroom.core.errors import Replaced, Trimmed
from chatroom.core.messages import (
    Act,
    Conflict,
    Draft,
    Duplicate,
    Edited,
    Head,
    Message,
    Moderate,
    Moderated,
    Outcome,
    Page,
    Record,
    RoomSummary,
    text_bytes,
)
from chatroom.core.sanctions import Sanction, Sanctions
from chatroom.engines import changes
from chatroom.engines.engine import READ_BYTES, Feed

PER_ROOM = 500
TOTAL_BYTES = 64 * 1024 * 1024
OVERHEAD = 300
"""About the bytes that a stored message takes beyond its text: objects, name and index entry."""
IDLE_ROOM = 2000
"""About the bytes that a room that nobody uses takes beyond its messages."""


_NOTHING: deque[Record] = deque()
"""Shared by rooms where nothing was stored: an empty deque would be most of what such a room takes."""


def _size(record: Record) -> int:
    return OVERHEAD + 4 * len(record.text)  # a string's widest form


def _bounded(records: Iterable[Record], max_bytes: int) -> list[Record]:
    """As many as make `max_bytes`, with the one that does."""
    found, size = [], 0
    for record in records:
        found.append(record)
        if (size := size + text_bytes(record)) >= max_bytes:
            break
    return found


class _Log:
    """The log of one room, as far as it is kept."""

    __slots__ = ("cids", "epoch", "last_id", "others", "records")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.last_id = 0
        self.others = 0  # records that were no messages
        self.records = _NOTHING
        self.cids: dict[tuple[str, str], int] = {}

    @property
    def first_id(self) -> int:
        return self.last_id - len(self.records) + 1

    def get(self, record_id: int) -> Record | None:
        """The record of an id, if it is kept."""
        at = record_id - self.first_id
        return self.records[at] if 0 <= at < len(self.records) else None

    def replace(self, record: Record) -> None:
        """The record of this id is now another one."""
        self.records[record.id - self.first_id] = record

    def trim(self) -> Record:
        record = self.records.popleft()
        if record.cid is not None:
            del self.cids[record.username, record.cid]
        return record

    def between(self, after: int, upto: int) -> Iterable[Record]:
        """The records of a range, ascending."""
        start = max(0, after + 1 - self.first_id)
        return islice(self.records, start, max(start, upto + 1 - self.first_id))

    def messages(self, after: int, upto: int) -> list[Message]:
        """The messages among the records of a range, ascending."""
        return [each for each in self.between(after, upto) if isinstance(each, Message)]


class MemoryEngine:
    """An Engine whose promises end with the process."""

    durable = False
    shared = False

    def __init__(
        self,
        new_epoch: Callable[[], str],
        *,
        per_room: int = PER_ROOM,
        total_bytes: int = TOTAL_BYTES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`now_ms` says which sanctions are over."""
        self._new_epoch = new_epoch
        self._now_ms = now_ms
        self._per_room = per_room
        self._total = total_bytes
        self._bytes = 0
        self._epoch = new_epoch()
        self._used: OrderedDict[str, _Log] = OrderedDict()  # by last write, the stalest first
        self._idle: OrderedDict[str, _Log] = OrderedDict()  # by release, the stalest first
        self._sanctions: dict[str, Sanctions] = {}  # of rooms that have any

    async def serve(
        self,
        _feed: Feed,
        /,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See Engine. This one needs nothing."""
        task_status.started()
        await trio.sleep_forever()

    def troubles(self) -> tuple[str, ...]:
        """See Engine. This one has none."""
        return ()

    def sizes(self) -> tuple[int, int]:
        """See Engine."""
        return 0, 0

    @property
    def statistics(self) -> None:
        """See Engine."""
        return None

    def open(self, room: str, opened: Callable[[Head | Exception], None]) -> None:
        """See Engine. The answer comes at once."""
        log = self._used.get(room)
        if log is None:
            if (log := self._idle.pop(room, None)) is None:
                log = _Log(self._epoch)
            else:
                self._bytes -= IDLE_ROOM
            self._used[room] = log
        opened(self._head(room))

    def release(self, room: str) -> None:
        """See Engine."""
        log = self._used.pop(room)
        if log.last_id:
            self._idle[room] = log
            self._bytes += IDLE_ROOM
            self._fit()

    def append(self, drafts: Sequence[Draft], committed: Callable[[list[Outcome] | Exception], None]) -> None:
        """See Engine. The answer comes at once."""
        committed([self._append(draft) for draft in drafts])

    def _append(self, draft: Draft) -> Outcome:
        log = self._used[draft.room]
        if draft.cid is not None and (known := log.cids.get((draft.username, draft.cid))) is not None:
            record = log.get(known)
            assert record is not None, "a cid goes with its record"
            return Duplicate(known) if changes.is_same(draft, record) else Conflict()
        sanctions = self._sanctions.get(draft.room) if self._sanctions else None
        if sanctions is not None and (denied := changes.denied(draft, sanctions)) is not None:
            return denied
        if draft.act is not None:
            return self._append_act(log, draft, draft.act)
        message = Message(log.last_id + 1, draft.ts, draft.username, draft.text, draft.cid)
        self._put(draft, log, message)
        return message

    def _append_act(self, log: _Log, draft: Draft, act: Act) -> Outcome:
        """A draft that is no message."""
        number = log.last_id + 1
        record: Record
        if isinstance(act, Moderate):
            sanctions = self._sanctions.get(draft.room) or Sanctions()
            if (refused := changes.judge_sanction(draft, act, sanctions)) is not None:
                return refused
            record = changes.moderated(draft, act, number)
            sanctions.apply(record.action, changes.sanction_of(record))
            if sanctions:
                self._sanctions[draft.room] = sanctions
            else:
                self._sanctions.pop(draft.room, None)
        else:
            target = log.get(act.about)
            if (refused := changes.judge_change(draft, act, target)) is not None:
                return refused
            assert isinstance(target, Message), "it was judged"
            record = changes.changed(draft, act, number, target)
            self._replace(log, target, changes.as_it_is(target, record))
            if isinstance(earlier := log.get(record.replaces), Edited):
                self._replace(log, earlier, earlier._replace(text=""))
        log.others += 1
        self._put(draft, log, record)
        return record

    def _put(self, draft: Draft, log: _Log, record: Record) -> None:
        """Add a record, whose id is the next one."""
        log.last_id += 1
        if log.records is _NOTHING:
            log.records = deque()
        log.records.append(record)
        if draft.cid is not None:
            log.cids[draft.username, draft.cid] = log.last_id
        self._bytes += _size(record)
        self._used.move_to_end(draft.room)
        if len(log.records) > self._per_room:
            self._bytes -= _size(log.trim())
        if self._bytes > self._total:
            self._fit()

    def _replace(self, log: _Log, old: Record, new: Record) -> None:
        log.replace(new)
        self._bytes += _size(new) - _size(old)

    def _fit(self) -> None:
        while self._bytes > self._total:
            self._give_up_stalest()

    def _give_up_stalest(self) -> None:
        """Free some memory by rule 2."""
        if self._idle:
            _, log = self._idle.popitem(last=False)
            self._bytes -= IDLE_ROOM + sum(map(_size, log.records))
            self._epoch = self._new_epoch()
            return
        room, log = next(iter(self._used.items()))
        if log.records:
            self._bytes -= _size(log.trim())
        else:
            self._used.move_to_end(room)

    async def head(self, room: str) -> Head:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        return self._head(room)

    def _head(self, room: str) -> Head:
        log = self._used[room]
        sanctions = self._sanctions.get(room)
        known = () if sanctions is None else sanctions.in_force(self._now_ms())
        return Head(log.epoch, log.last_id, log.others, known)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._log(room, epoch)
        if after + 1 < log.first_id:
            raise Trimmed(log.first_id)
        return _bounded(log.between(after, min(upto, after + limit)), max_bytes)

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
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._log(room, epoch)
        end = upto if before is None else min(upto, before - 1)
        kept = log.messages(0 if after is None else after, end)
        if after is None:
            kept.reverse()
        found = [each for each in _bounded(kept[:limit], max_bytes) if isinstance(each, Message)]
        more = len(found) < len(kept)
        return Page(tuple(found if after is not None else reversed(found)), more)

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        found = [each for each in self._log(room, epoch).between(0, upto) if isinstance(each, Moderated)]
        return found[-limit:]

    async def sanctions(self, room: str) -> tuple[Sanction, ...]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        known = self._sanctions.get(room)
        return () if known is None else known.in_force(self._now_ms())

    async def summaries(self) -> list[RoomSummary]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        return [
            RoomSummary(room, log.last_id, log.records[-1].ts)
            for logs in (self._used, self._idle)
            for room, log in logs.items()
            if log.records
        ]

    def first_id(self, room: str) -> int:
        """See Engine."""
        return self._used[room].first_id

    def attend(self, room: str, came: Collection[str], went: Collection[str]) -> None:
        """See Engine."""

    def tell_typing(self, room: str, username: str, *, active: bool) -> None:
        """See Engine."""

    def _log(self, room: str, epoch: str) -> _Log:
        log = self._used[room]
        if log.epoch != epoch:
            raise Replaced
        return log
