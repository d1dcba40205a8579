"""The logs of rooms in the store: appended to, and read.

Owns: which outcome each draft of an append has, and the times of the messages that were handed on.

1. An append says what was shown of its room: the epoch, the last id, and that message's time. Where the store
   has less, or something else there, its log was replaced: nothing is stored, and `heads` sees to the rest.
2. What others have stored between the last id shown and the first outcome is handed to the broker before the
   outcomes; where that is much, its last id alone.
3. What an append has done is unknown when the store doesn't answer in time.
4. A page that is read proves what it shows, and a page that is missing proves that the log was replaced.

Doesn't know: where a room's messages are shown, and to whom.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from chatroom.core.errors import Replaced, Trimmed, Unavailable
from chatroom.core.logevents import log_event
from chatroom.core.messages import Conflict, Draft, Duplicate, Failed, Head, Message, Outcome, Page, Unknown
from chatroom.engines.engine import Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.commander import HEAVY
from chatroom.engines.redis.heads import HeadCheck
from chatroom.engines.redis.pushes import messages_of
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import SharedRoom, SharedRooms

UNREAD = "the store's log was replaced"

Committed = Callable[[list[Outcome] | Exception], None]


class StoreLog:
    """The logs of all rooms of one engine. `foreign`: messages of other nodes that came with outcomes."""

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
                self._tell_between(room, shown, lines, messages_of(shown.last_id + 1, between or ()))
                room.remember_times((outcome for outcome in outcomes if isinstance(outcome, Message)), shown)
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

    def _tell_between(self, room: SharedRoom, shown: Head, lines: list[Any], between: list[Message]) -> None:
        """Hand messages of other nodes to the broker before the outcomes; if they are many, their last id."""
        if between:
            self.foreign += len(between)
            room.remember_times(between, shown)
            self._feed.arrived(room.name, shown.epoch, between)
        ids = [abs(line) for line in lines if line]
        if ids:
            room.last = max(room.last, *ids)
            complete = shown.last_id + len(between)
            before = min((line for line in lines if line and line > 0), default=max(ids) + 1) - 1
            if before > complete:
                self._feed.ahead(room.name, shown.epoch, before)

    # Reading

    async def head(self, room: str) -> Head:
        """See Engine."""
        known = self._rooms.listened_to(room)
        reply = await self._store.call(
            known.keys.slot, library.heads([known.keys.meta]), patience=self._patience
        )
        if not reply[1][0]:
            self._heads.renew(known, known.epoch)
            raise Unavailable(UNREAD)
        epoch, last, _ = reply[1][0]
        return Head(epoch, last)

    async def read(
        self, room: str, epoch: str, after: int, upto: int, *, limit: int, max_bytes: int
    ) -> list[Message]:
        """See Engine."""
        known = self._rooms.listened_to(room)
        command = library.read(known.keys, epoch, after, upto, limit=limit, most=max_bytes)
        match await self._store.call(known.keys.slot, command, patience=self._patience, weight=HEAVY):
            case ["ok", first, lines]:
                known.trimmed(first)
                messages = messages_of(after + 1, lines or ())
                shown = self._feed.shown(room)
                if shown is not None and after >= shown.last_id:  # it is about to be shown
                    known.remember_times(messages, shown)
                elif shown is not None and not messages and shown.epoch == epoch:  # it has been
                    self._heads.renew(known, epoch)
                    raise Replaced(UNREAD)
                return messages
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
        command = library.history(known.keys, epoch, before, after, upto, limit=limit, most=max_bytes)
        match await self._store.call(known.keys.slot, command, patience=self._patience, weight=HEAVY):
            case ["ok", first, start, lines, more]:
                known.trimmed(first)
                return Page(tuple(messages_of(start, lines or ())), more=more)
            case other:
                raise self._replacement(known, epoch, other)

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


def _outcome(line: Any, draft: Draft, ts: int) -> Outcome:
    if line is False:
        return Failed()
    if line > 0:
        return Message(line, ts, draft.username, draft.text, draft.cid)
    return Duplicate(-line) if line else Conflict()
