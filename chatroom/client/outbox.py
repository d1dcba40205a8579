"""What a client wants to have stored: messages, edits, deletions, actions of a moderator.

Owns the drafts that aren't settled. Rules:

1. A draft is settled by the record with its `cid` that comes of it, live or replayed, by an `ack`, or by an
   `error` other than `unavailable`. Until then it is sent again after each loss of the connection, under the
   same `cid`: the server stores it once.
2. One draft is under way at a time. So the order of what was said is the order in the log, also where the
   store fails for one draft and takes the next one.
3. A draft belongs to one room, and is sent in no other. Whoever goes to another room and back keeps the
   order, too.
4. A draft whose frame is larger than the server takes is refused here: the server would close the connection.
   If it does, without having said its limit, the draft under way was it.
5. An id means a message of the history that the room had. In another one it would be another message, so a
   draft with an id doesn't outlive its history.

It doesn't know a clock beyond the times that it is given, nor how a frame travels.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatroom.client.events import Settled
from chatroom.client.frames import RECORDS, Frame, command, text_of, whole_number

UNAVAILABLE = "unavailable"
RETRY_SECONDS = 1.0
"""How long to wait after the store was unavailable."""
TOO_LARGE = "it is larger than this server takes"
REPLACED = "the history was replaced, and ids begin anew"


@dataclass(slots=True)
class Draft:
    """A command that is to be stored in `room`."""

    cid: str
    room: str
    event: str
    data: Mapping[str, Any]


class Outbox:
    """The drafts of one client, in their order."""

    def __init__(self) -> None:
        self._drafts: OrderedDict[str, Draft] = OrderedDict()  # it finds its first one at once: no dict does
        self._under_way: Draft | None = None
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._drafts)

    def add(self, draft: Draft) -> None:
        """A draft joins the others. Its `cid` is its own."""
        self._drafts[draft.cid] = draft

    def next(self, room: str, now: float, largest: int | None) -> Iterator[str | Settled]:
        """The text of the frame to send in `room` now, behind what is refused because it is too large."""
        while self._under_way is None and now >= self._not_before and (draft := self._first(room)):
            text = command(draft.event, draft.data, draft.cid)
            if largest is not None and len(text.encode()) > largest:
                yield self._settle(Settled(draft.cid, error=TOO_LARGE))
            else:
                self._under_way = draft
                yield text

    def due(self, room: str) -> float | None:
        """When `next` may have something to send in `room`; None: not before something happens."""
        return self._not_before if self._under_way is None and self.waits_for(room) else None

    def waits_for(self, room: str) -> bool:
        """Whether the next draft is for `room`."""
        return self._first(room) is not None

    def _first(self, room: str) -> Draft | None:
        """The first draft, if it is for `room`: what is said in one room later isn't said before it."""
        first = next(iter(self._drafts.values()), None)
        return first if first is not None and first.room == room else None

    def lost(self) -> None:
        """The connection is gone: what was under way is sent again."""
        self._under_way = None

    def recorded(self, frame: Frame, number: int, username: str) -> Settled | None:
        """A record came; is it of a draft?"""
        draft = self._drafts.get(frame.cid or "")
        if draft is None or frame.author != username or frame.room != draft.room:
            return None
        return self._settle(Settled(draft.cid, number))

    def answered(self, frame: Frame, now: float) -> Settled | None:
        """An `ack` or an `error` came with the `cid` of a draft."""
        draft = self._drafts.get(frame.cid or "")
        if draft is None or frame.event in RECORDS:
            return None
        if frame.event != "error":
            number = whole_number(frame.data.get("id"))
            return self._settle(Settled(draft.cid, number, duplicate=frame.data.get("duplicate") is True))
        if text_of(frame.whole.get("code")) == UNAVAILABLE:
            if draft is self._under_way:
                self._under_way = None
                self._not_before = now + RETRY_SECONDS
            return None
        return self._settle(Settled(draft.cid, error=frame.complaint))

    def owns(self, cid: str | None) -> bool:
        """Whether a draft has this `cid`."""
        return cid in self._drafts

    def too_large(self) -> Settled | None:
        """The connection was closed by 1009: what was under way is refused."""
        draft = self._under_way
        return None if draft is None else self._settle(Settled(draft.cid, error=TOO_LARGE))

    def refuse(self, room: str, error: str) -> Iterator[Settled]:
        """The client doesn't get into `room`: what was to be said there next is refused."""
        while draft := self._first(room):
            yield self._settle(Settled(draft.cid, error=error))

    def replaced(self, room: str) -> Iterator[Settled]:
        """The room has another history: what means a message of the old one is refused."""
        for draft in [each for each in self._drafts.values() if each.room == room and "id" in each.data]:
            yield self._settle(Settled(draft.cid, error=REPLACED))

    def rename(self, written: str, room: str) -> None:
        """The server calls a room by another name than it was written."""
        for draft in self._drafts.values():
            if draft.room == written:
                draft.room = room

    def _settle(self, settled: Settled) -> Settled:
        draft = self._drafts.pop(settled.cid)
        if draft is self._under_way:
            self._under_way = None
        return settled
