"""The engine without a disk: a bounded log per room that lives as long as the process.

1. A room keeps its newest `per_room` messages, and all rooms together `total_bytes`.
2. Past the total, whole rooms that nobody uses go first, the one used longest ago before others;
   then the oldest messages of the room that was written longest ago.
3. A room where nothing was stored leaves nothing behind.
4. Each time a log is given up, later rooms get a new epoch, so that a stale id is never taken for a
   valid one; rooms that never stored anything can be freed and come back under the same epoch.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice

import trio

from chatroom.values.errors import Trimmed
from chatroom.values.messages import Conflict, Draft, Duplicate, Head, Message, Outcome, Page, Stored

PER_ROOM = 500
TOTAL_BYTES = 64 * 1024 * 1024
OVERHEAD = 300
"""About what a stored message costs beyond its text, in bytes: objects, name and index entry."""
IDLE_ROOM = 2000
"""About what a room that nobody uses costs beyond its messages, in bytes."""


_NOTHING: deque[Message] = deque()
"""Stands in rooms where nothing was stored: an empty deque of its own would be most of what they cost."""


def _size(message: Message) -> int:
    return OVERHEAD + 4 * len(message.text)  # a string's widest form


class _Log:
    """What is kept of one room."""

    __slots__ = ("cids", "epoch", "last_id", "messages")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.last_id = 0
        self.messages = _NOTHING
        self.cids: dict[tuple[str, str], Message] = {}

    @property
    def first_id(self) -> int:
        return self.last_id - len(self.messages) + 1

    def put(self, draft: Draft) -> Message:
        self.last_id += 1
        message = Message(self.last_id, draft.ts, draft.username, draft.text, draft.cid)
        if self.messages is _NOTHING:
            self.messages = deque()
        self.messages.append(message)
        if message.cid is not None:
            self.cids[message.username, message.cid] = message
        return message

    def trim(self) -> Message:
        message = self.messages.popleft()
        if message.cid is not None:
            del self.cids[message.username, message.cid]
        return message

    def between(self, after: int, upto: int) -> list[Message]:
        start = max(0, after + 1 - self.first_id)
        return list(islice(self.messages, start, max(start, upto + 1 - self.first_id)))


class MemoryEngine:
    """An Engine whose promises end with the process."""

    def __init__(
        self,
        new_epoch: Callable[[], str],
        *,
        per_room: int = PER_ROOM,
        total_bytes: int = TOTAL_BYTES,
    ) -> None:
        self._new_epoch = new_epoch
        self._per_room = per_room
        self._total = total_bytes
        self._bytes = 0
        self._epoch = new_epoch()
        self._used: OrderedDict[str, _Log] = OrderedDict()  # by last write, the stalest first
        self._idle: OrderedDict[str, _Log] = OrderedDict()  # by release, the stalest first

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See Engine. It needs nothing."""
        task_status.started()
        await trio.sleep_forever()

    def troubles(self) -> tuple[str, ...]:
        """See Engine. It has none."""
        return ()

    async def open(self, room: str) -> Head:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._used.get(room)
        if log is None:
            if (log := self._idle.pop(room, None)) is None:
                log = _Log(self._epoch)
            else:
                self._bytes -= IDLE_ROOM
            self._used[room] = log
        return Head(log.epoch, log.last_id)

    def release(self, room: str) -> None:
        """See Engine."""
        log = self._used.pop(room)
        if log.last_id:
            self._idle[room] = log
            self._bytes += IDLE_ROOM
            self._fit()

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See Engine. Gives way once, so that senders who are ready get into the next batch."""
        await trio.lowlevel.checkpoint()
        return [self._append(draft) for draft in drafts]

    def _append(self, draft: Draft) -> Outcome:
        log = self._used[draft.room]
        if draft.cid is not None and (known := log.cids.get((draft.username, draft.cid))) is not None:
            return Duplicate(known.id) if known.text == draft.text else Conflict()
        message = log.put(draft)
        self._bytes += _size(message)
        self._used.move_to_end(draft.room)
        if len(log.messages) > self._per_room:
            self._bytes -= _size(log.trim())
        self._fit()
        return Stored(message)

    def _fit(self) -> None:
        while self._bytes > self._total:
            self._give_up_stalest()

    def _give_up_stalest(self) -> None:
        """Free some memory by rule 2."""
        if self._idle:
            _, log = self._idle.popitem(last=False)
            self._bytes -= IDLE_ROOM + sum(map(_size, log.messages))
            self._epoch = self._new_epoch()
            return
        room, log = next(iter(self._used.items()))
        if log.messages:
            self._bytes -= _size(log.trim())
        else:
            self._used.move_to_end(room)

    async def read(self, room: str, after: int, upto: int, limit: int) -> list[Message]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._used[room]
        if after + 1 < log.first_id:
            raise Trimmed(f"the oldest message kept is {log.first_id}")
        return log.between(after, min(upto, after + limit))

    async def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int
    ) -> Page:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._used[room]
        if after is not None:
            start = max(after, log.first_id - 1)
            found = log.between(start, min(upto, start + limit))
            return Page(tuple(found), more=bool(found) and found[-1].id < upto)
        end = upto if before is None else min(upto, before - 1)
        found = log.between(end - limit, end)
        return Page(tuple(found), more=bool(found) and found[0].id > log.first_id)

    def first_id(self, room: str) -> int:
        """See Engine."""
        return self._used[room].first_id
