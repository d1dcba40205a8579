"""The logs of rooms in the store: appended to, and read.

Owns: which outcome each draft of an append has, and the times of the records that were handed on.

1. An append says what was shown of its room: the epoch, the last id, and that record's time. Where the store
   has less, or something else there, its log was replaced: nothing is stored, and `heads` sees to the rest.
2. What others have stored between the last id shown and the first outcome is handed to the broker before the
   outcomes; where that is much, its last id alone.
3. What an append has done is unknown when the store doesn't answer in time.
4. A page that is read proves what it shows, and a page that is missing proves that the log was replaced.
5. One call of the store looks at a bounded number of records. A page of messages that are far apart takes
   several.

Doesn't know: where a room's messages are shown, and to whom.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import trio

from chatroom.core.errors import Replaced, Trimmed, Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import (
    STORED,
    Conflict,
    Delete,
    Denial,
    Denied,
    Done,
    Draft,
    Duplicate,
    Failed,
    Head,
    Message,
    Moderated,
    NotFound,
    Outcome,
    Page,
    Record,
    Unknown,
    text_bytes,
)
from chatroom.core.sanctions import Sanction
from chatroom.engines.engine import Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.commander import HEAVY
from chatroom.engines.redis.heads import HeadCheck
from chatroom.engines.redis.library import Command, RoomKeys
from chatroom.engines.redis.pushes import record_of, records_of, sanctions_of, until_of
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import SharedRoom, SharedRooms

UNREAD = "the store's log was replaced"
LOOKED_THROUGH = 10_000
"""Records among which moderations are looked for, the newest ones."""

Committed = Callable[[list[Outcome] | Exception], None]


class StoreLog:
    """The logs of all rooms of one engine. `foreign`: records of other nodes that came with outcomes."""

    def __init__(
        self,
        store: Shards,
        feed: Feed,
        rooms: SharedRooms,
        heads: HeadCheck,
        *,
        append_patience: float,
        patience: float,
    ) -> None:
        """Seconds for an answer of the store: `append_patience` to an append, `patience` to all else."""
        self._store = store
        self._feed = feed
        self._rooms = rooms
        self._heads = heads
        self._append_patience = append_patience
        self._patience = patience
        self.foreign = 0

    # Appending

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        """See Engine."""
        if not drafts:
            committed([])
            return
        rooms: dict[str, list[int]] = {}
        for number, draft in enumerate(drafts):
            rooms.setdefault(draft.room, []).append(number)
        batch = _Batch(drafts, len(rooms), committed)
        for name, numbers in rooms.items():
            if (room := self._rooms.by_name.get(name)) is None:  # its log was replaced long ago
                batch.done(numbers, [Unknown()] * len(numbers))
                continue
            shown = self._feed.shown(name) or Head(room.epoch, room.last)
            own = [drafts[number] for number in numbers]
            room.appending += 1
            self._store.submit(
                room.keys.slot,
                library.append(
                    *(room.keys, room.context, shown.epoch, own),
                    known=shown.last_id,
                    ts=room.stored_at.get(shown.last_id, 0),
                ),
                partial(self._appended, batch, room, shown, numbers),
                patience=self._append_patience,
                retry=False,
                urgent=True,
            )

    def _appended(
        self, batch: "_Batch", room: SharedRoom, shown: Head, numbers: list[int], reply: Any
    ) -> None:
        room.appending -= 1
        outcomes: Sequence[Outcome] = [Unknown()] * len(numbers)
        match reply:
            case ["ok", first, lines, ts, between, refused]:
                self._store.of(room.keys.slot).accepted()
                room.trimmed(first)
                if refused and refused != room.refused:
                    log_event(logging.ERROR, "append_refused", room=room.name, error=str(refused)[:200])
                room.refused = refused
                own = [batch.drafts[number] for number in numbers]
                outcomes = [_outcome(line, draft, ts) for line, draft in zip(lines, own, strict=True)]
                self._tell_between(room, shown, [_id_of(line) for line in lines], between or ())
                room.remember_times((each for each in outcomes if isinstance(each, STORED)), shown)
            case ["replaced", epoch, last]:
                self._heads.found_replaced(room, epoch, last)
            case ["behind" | "missing", *_]:
                self._heads.renew(room, shown.epoch)
        tip, room.own_pushed = room.own_pushed, None
        batch.done(numbers, outcomes)
        if tip is not None:
            self.tell_own(room, *tip)

    def tell_own(self, room: SharedRoom, epoch: str, last: int) -> None:
        """Own messages are in the log. Tell the broker, if a reply was lost and their outcomes are not known.

        Else their push may come before the whole batch is answered, and they would be read from the log once
        more.
        """
        if epoch != room.epoch or last > room.last:
            self._feed.ahead(room.name, epoch, last)

    def _tell_between(self, room: SharedRoom, shown: Head, ids: list[int], between: Sequence[Any]) -> None:
        """Hand records of other nodes to the broker before the outcomes; if they are many, their last id.

        `ids`: of the outcomes, see `_id_of`.
        """
        records: list[Record] = []
        if between:
            with suppress(Unavailable):
                records = _records(shown.last_id + 1, between)
                self.foreign += len(records)
                room.remember_times(records, shown)
                self._feed.arrived(room.name, shown.epoch, records)
        last = max(map(abs, ids))
        if last:
            room.last = max(room.last, last)
            complete = shown.last_id + len(records)
            before = min((each for each in ids if each > 0), default=last + 1) - 1
            if before > complete:
                self._feed.ahead(room.name, shown.epoch, before)

    # Reading

    async def head(self, room: str) -> Head:
        """See Engine."""
        known = self._rooms.listened_to(room)
        match await self._store.call(known.keys.slot, library.head(known.keys), patience=self._patience):
            case ["ok", epoch, last, others, sanctions]:
                return Head(epoch, last, others, sanctions_of(sanctions or ()))
            case _:
                self._heads.renew(known, known.epoch)
                raise Unavailable(UNREAD)

    async def sanctions(self, keys: RoomKeys) -> tuple[Sanction, ...]:
        """See Engine."""
        match await self._store.call(keys.slot, library.head(keys), patience=self._patience):
            case ["ok", _, _, _, sanctions]:
                return sanctions_of(sanctions or ())
            case _:  # there is no such room
                return ()

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int
    ) -> list[Record]:
        """See Engine."""
        known = self._rooms.listened_to(room)
        command = library.read(known.keys, epoch, after, upto, limit=limit, most=max_bytes)
        match await self._store.call(known.keys.slot, command, patience=self._patience, weight=HEAVY):
            case ["ok", first, lines]:
                known.trimmed(first)
                records = _records(after + 1, lines or ())
                shown = self._feed.shown(room)
                if shown is not None and after >= shown.last_id:  # it is about to be shown
                    known.remember_times(records, shown)
                elif shown is not None and not records and shown.epoch == epoch:  # it has been
                    self._heads.renew(known, epoch)
                    raise Replaced(UNREAD)
                return records
            case ["trimmed", first]:
                known.trimmed(first)
                raise Trimmed(first)
            case other:
                raise self._replacement(known, epoch, other)

    async def history(
        self,
        room: str,
        epoch: str,
        *,
        before: int | None,
        after: int | None,
        upto: int,
        limit: int,
        max_bytes: int,
    ) -> Page:
        """See Engine."""
        known = self._rooms.listened_to(room)
        found: list[Message] = []
        upward, due = after is not None, trio.current_time() + self._patience
        while True:
            left = max_bytes - sum(map(text_bytes, found))
            command = library.history(
                *(known.keys, epoch, before, after, upto), limit=limit - len(found), most=left
            )
            match await self._call(known, command, due):
                case ["ok", first, ids, lines, more, go_on]:
                    known.trimmed(first)
                    found += _messages(ids or (), lines or ())
                case other:
                    raise self._replacement(known, epoch, other)
            if go_on is False:
                return Page(tuple(found if upward else reversed(found)), more=more)
            before, after = (None, go_on) if upward else (go_on, None)

    async def moderations(self, room: str, epoch: str, *, upto: int, limit: int) -> list[Moderated]:
        """See Engine."""
        known = self._rooms.listened_to(room)
        found: list[Moderated] = []
        below, due = upto, trio.current_time() + self._patience
        while True:
            command = library.moderations(known.keys, epoch, below, limit=limit - len(found))
            match await self._call(known, command, due):
                case ["ok", ids, lines, go_on]:
                    found += _moderations(ids or (), lines or ())
                case other:
                    raise self._replacement(known, epoch, other)
            if go_on is False or upto - go_on >= LOOKED_THROUGH:
                return found[::-1]
            below = go_on - 1

    async def _call(self, room: SharedRoom, command: Command, due: float) -> Any:
        patience = max(0.0, due - trio.current_time())
        return await self._store.call(room.keys.slot, command, patience=patience, weight=HEAVY)

    def _replacement(self, room: SharedRoom, epoch: str, reply: Any) -> Replaced:
        """The room's log is another one, or gone."""
        match reply:
            case ["replaced", other, last]:
                self._heads.found_replaced(room, other, last)
            case _:
                self._heads.renew(room, epoch)
        return Replaced(UNREAD)


class _Batch:
    """An append whose drafts go to several rooms: it is answered when all have their outcome."""

    __slots__ = ("_committed", "_left", "_outcomes", "drafts")

    def __init__(self, drafts: Sequence[Draft], rooms: int, committed: Committed) -> None:
        self.drafts = drafts
        self._left = rooms
        self._committed = committed
        self._outcomes: list[Outcome] = [Unknown()] * len(drafts)

    def done(self, numbers: list[int], outcomes: Sequence[Outcome]) -> None:
        """A room's drafts have these outcomes."""
        for number, outcome in zip(numbers, outcomes, strict=True):
            self._outcomes[number] = outcome
        self._left -= 1
        if not self._left:
            self._committed(self._outcomes)


def _id_of(line: Any) -> int:
    """The id that an outcome's line tells of: negative for a duplicate, 0 if there is none."""
    if type(line) is list:
        line = line[0]
    return line if type(line) is int else 0


def _outcome(line: Any, draft: Draft, ts: int) -> Outcome:
    match line:
        case False:
            return Failed()
        case int() if line > 0:
            return Message(line, ts, draft.username, draft.text, draft.cid)
        case 0:
            return Conflict()
        case int():
            return Duplicate(-line)
        case "done":
            return Done()
        case "not_found":
            return NotFound()
        case ["denied", why, until]:
            return Denied(Denial[why], until_of(until))
        case _:
            number, rest = line
            text = "" if isinstance(draft.act, Delete) else draft.text
            return record_of(number, (ts, draft.username, text, draft.cid, rest))


def _records(first: int, lines: Sequence[Any]) -> list[Record]:
    """Dense records from the id `first` on. Raises Unavailable if one isn't of this version."""
    with _readable():
        return records_of(first, lines)


def _messages(ids: Sequence[int], lines: Sequence[Any]) -> list[Message]:
    """The records of these ids, which are messages. Raises Unavailable."""
    with _readable():
        records = map(record_of, ids, lines)
        return [each for each in records if isinstance(each, Message)]


def _moderations(ids: Sequence[int], lines: Sequence[Any]) -> list[Moderated]:
    """The records of these ids, which are actions of moderators. Raises Unavailable."""
    with _readable():
        records = map(record_of, ids, lines)
        return [each for each in records if isinstance(each, Moderated)]


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Unavailable("a record in the store can't be read: is a newer version in use?") from None
