"""The engine without a disk: a bounded log per room that lives as long as the process.

1. A room keeps its newest `per_room` messages, and all rooms together `total_bytes`.
2. Past the total, whole rooms that nobody uses go first, the one used longest ago before others. Then go the
   oldest messages of the room that was written longest ago.
3. A room where nothing was stored leaves nothing behind.
4. Each time a log is given up, later rooms get a new epoch, so that a stale id is never taken for a valid
   one. Rooms that never stored anything can be freed and come back under the same epoch.

It doesn't know who uses a room, only whether anybody does.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import trio

from chatroom.core.errors import Replaced, Trimmed
from chatroom.core.messages import (
    Conflict,
    Draft,
    Duplicate,
    Head,
    Message,
    Outcome,
    Page,
    text_bytes,
)
from chatroom.engines.engine import READ_BYTES, Feed

PER_ROOM = 500
TOTAL_BYTES = 64 * 1024 * 1024
OVERHEAD = 300
"""About the bytes that a stored message takes beyond its text: objects, name and index entry."""
IDLE_ROOM = 2000
"""About the bytes that a room that nobody uses takes beyond its messages."""


_NOTHING: deque[Message] = deque()
"""Shared by rooms where nothing was stored: an empty deque would be most of what such a room takes."""


def _size(message: Message) -> int:
    return OVERHEAD + 4 * len(message.text)  # a string's widest form


class _Log:
    """The log of one room, as far as it is kept."""

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

    def between(self, after: int, upto: int, max_bytes: int, *, newest_first: bool = False) -> list[Message]:
        """The messages of a range, ascending: as many, from the end read first, as make `max_bytes`."""
        start = max(0, after + 1 - self.first_id)
        found = list(islice(self.messages, start, max(start, upto + 1 - self.first_id)))
        if newest_first:
            found.reverse()
        size = 0
        for count, message in enumerate(found, 1):
            if (size := size + text_bytes(message)) >= max_bytes:
                del found[count:]
                break
        if newest_first:
            found.reverse()
        return found


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
    ) -> None:
        self._new_epoch = new_epoch
        self._per_room = per_room
        self._total = total_bytes
        self._bytes = 0
        self._epoch = new_epoch()
        self._used: OrderedDict[str, _Log] = OrderedDict()  # by last write, the stalest first
        self._idle: OrderedDict[str, _Log] = OrderedDict()  # by release, the stalest first

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
        opened(Head(log.epoch, log.last_id))

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
            return Duplicate(known.id) if known.text == draft.text else Conflict()
        message = log.put(draft)
        self._bytes += _size(message)
        self._used.move_to_end(draft.room)
        if len(log.messages) > self._per_room:
            self._bytes -= _size(log.trim())
        self._fit()
        return message

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

    async def head(self, room: str) -> Head:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._used[room]
        return Head(log.epoch, log.last_id)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int = READ_BYTES
    ) -> list[Message]:
        """See Engine."""
        await trio.lowlevel.checkpoint()
        log = self._log(room, epoch)
        if after + 1 < log.first_id:
            raise Trimmed(log.first_id)
        return log.between(after, min(upto, after + limit), max_bytes)

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
        if after is not None:
            start = max(after, log.first_id - 1)
            found = log.between(start, min(upto, start + limit), max_bytes)
            return Page(tuple(found), more=bool(found) and found[-1].id < upto)
        end = upto if before is None else min(upto, before - 1)
        found = log.between(end - limit, end, max_bytes, newest_first=True)
        return Page(tuple(found), more=bool(found) and found[0].id > log.first_id)

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
