"""The directory: which rooms there are, newest activity first.

1. What the store says of all rooms is kept for a moment, and the longer the longer it took: reading it takes
   a tenth of the time at most, however often anybody asks.
2. What this node knows of the rooms that are in use here is newer, and replaces that. Rooms that were given
   up since then are remembered as they stood.
3. A room is listed if something is stored in it, or somebody is in it.

It doesn't know who asks, nor which rooms they may see.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import trio

from chatroom.auth.rights import Rights
from chatroom.core.errors import Unavailable
from chatroom.core.messages import RoomSummary
from chatroom.engines.engine import Engine
from chatroom.protocol.events import ListedRoom
from chatroom.rooms.room import Room

FRESH_SECONDS = 1.0
"""How long what the store said is used at least."""
SHARE = 10
"""It is used so many times as long as it took to read, too."""
MOST_REMEMBERED = 1000
"""Rooms that were given up meanwhile; if there are more, the store is read again."""


def page_of(
    listed: Sequence[ListedRoom], rights: Rights, after: str | None, limit: int
) -> tuple[Sequence[ListedRoom], bool]:
    """At most `limit` of the rooms that may be read, behind the room `after`; and whether there are more.

    Raises LookupError if the room `after` isn't among them.
    """
    start = 0
    if after is not None:
        start = 1 + next((at for at, each in enumerate(listed) if each.room == after), len(listed))
        if start > len(listed) or not rights.can(after, "r"):
            raise LookupError(after)
    readable = (each for each in islice(listed, start, None) if rights.can(each.room, "r"))
    found = list(islice(readable, limit + 1))  # rights are asked of no more rooms than that takes
    return found[:limit], len(found) > limit


def _place(listed: ListedRoom) -> tuple[int, str]:
    """The newest activity first."""
    return -listed.last_ts, listed.room


def _listed(summary: RoomSummary) -> ListedRoom:
    return ListedRoom(summary.room, summary.members or 0, summary.last_id, summary.last_ts)


class _Reading:
    """The store is being read. `failure` is why it couldn't be, for all that wait."""

    __slots__ = ("ended", "failure")

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.failure: Unavailable | None = None


class Directory:
    """The list of rooms on one server."""

    def __init__(self, engine: Engine, in_use: Callable[[], Iterable[Room]]) -> None:
        self._engine = engine
        self._in_use = in_use
        self._stored: dict[str, ListedRoom] = {}  # in the order of the list, so that it is nearly sorted
        self._fresh_until = float("-inf")
        self._reading: _Reading | None = None
        self._given_up: dict[str, RoomSummary] = {}

    def give_up(self, room: Room) -> None:
        """A room is no longer in use on this node."""
        if room.last_ts and trio.current_time() < self._fresh_until:
            self._given_up[room.name] = RoomSummary(room.name, room.head, room.last_ts)
            if len(self._given_up) > MOST_REMEMBERED:
                self._given_up.clear()
                self._fresh_until = float("-inf")

    async def list(self) -> list[ListedRoom]:
        """All rooms. Raises Unavailable."""
        await self._refresh()
        newer = {name: _listed(each) for name, each in self._given_up.items()}
        for room in self._in_use():
            if not (room.head or len(room.roster)):
                continue
            known = newer.get(room.name) or self._stored.get(room.name)
            last_ts = room.last_ts or (0 if known is None else known.last_ts)
            newer[room.name] = ListedRoom(room.name, len(room.roster), room.head, last_ts)
        others = [each for each in self._stored.values() if each.room not in newer]
        return sorted([*others, *newer.values()], key=_place) if newer else others

    async def _refresh(self) -> None:
        """Read the store, unless that was done a moment ago; one task does it for all that ask.

        Raises Unavailable.
        """
        while (reading := self._reading) is not None:
            await reading.ended.wait()
            if reading.failure is not None:
                raise reading.failure
        began = trio.current_time()
        if began < self._fresh_until:
            await trio.lowlevel.checkpoint()
            return
        self._reading = reading = _Reading()
        try:
            self._given_up.clear()
            self._fresh_until = float("inf")  # rooms that are given up meanwhile are remembered
            stored = await self._engine.summaries()
            now = trio.current_time()
            self._stored = {each.room: each for each in sorted(map(_listed, stored), key=_place)}
            self._fresh_until = now + max(FRESH_SECONDS, SHARE * (now - began))
        except BaseException as error:
            self._fresh_until = float("-inf")
            reading.failure = error if isinstance(error, Unavailable) else None  # else another task reads
            raise
        finally:
            reading.ended.set()
            self._reading = None
