"""A member's stay in one room: a cursor into the room's log, and what is still to be told beside it.

1. A live stay has been given everything up to the room's head; the broker offers it what comes.
2. A lagging stay keeps its cursor; its connection's writer reads on from there. Stored messages are
   never queued for it.
3. Ephemera that a lagging stay may still get are kept by reference, few of them, each with the id
   after which it belongs; past that they are dropped, and if presence was among them, `members`
   follows.
4. A stay that has ended is read to its `end` and no further.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatroom.values.errors import Disconnect

if TYPE_CHECKING:
    from chatroom.tasks.room import Room

MAX_WITHHELD = 256


class Outlet(Protocol):
    """What the broker may do to a connection. Nothing here waits or raises."""

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        """Hand whole frames to the socket if it takes them at once; how many of them are now on their way."""
        ...

    def wake(self) -> None:
        """There is something to read on for."""
        ...

    def answer(self, payload: bytes) -> None:
        """Send the answer to a posted message."""
        ...

    def settled(self) -> None:
        """A posted message has got its outcome."""
        ...

    def reply(self, payload: bytes) -> None:
        """Send the answer to the one other command that is under way."""
        ...

    def opened(self) -> None:
        """`welcome` or `switched` is on its way: that was the answer."""
        ...

    def end(self, why: Disconnect) -> None:
        """Ask for the connection's end."""
        ...


class Item(NamedTuple):
    """One frame of a broadcast.

    `position` is its own id for a stored message, the id before it for anything else; `skip` is the
    username that must not get it; `presence` marks joined and left; `reply` the answer to a member's command,
    which is never dropped.
    """

    frame: bytes
    position: int
    stored: bool = False
    presence: bool = False
    reply: bool = False
    skip: str | None = None


class Stay:
    """One connection in one room."""

    __slots__ = ("_withheld", "cursor", "end", "live", "member", "missed", "offer", "opening", "room", "seen")

    def __init__(self, member: "Member", room: "Room", cursor: int, opening: bytes) -> None:
        self.member = member
        self.room = room
        self.cursor = cursor
        self.opening: bytes | None = opening
        self.live = False
        self.end: int | None = None
        self.seen = 0  # the number of the last batch that was offered to this stay or reckoned with
        self.missed = False
        self.offer: Callable[[bytes, Sequence[int]], int] = member.outlet.offer
        self._withheld: deque[Item] | None = None

    def lag(self, items: Sequence[Item], taken: int) -> None:
        """Of `items` the first `taken` are on their way; the stay lags from there."""
        self.live = False
        for index, item in enumerate(items):
            if index < taken:
                self.cursor = max(self.cursor, item.position)
            elif not item.stored and item.skip != self.member.username:
                self._withhold(item)

    def _withhold(self, item: Item) -> None:
        if self._withheld is None:
            self._withheld = deque()
        if item.reply or (len(self._withheld) < MAX_WITHHELD and not self.missed):
            self._withheld.append(item)
        elif item.presence:
            self.missed = True

    @property
    def next_withheld(self) -> Item | None:
        """The oldest of the ephemera that still wait."""
        return self._withheld[0] if self._withheld else None

    def take_withheld(self) -> Item:
        """Remove and return the oldest of the ephemera that still wait."""
        assert self._withheld is not None
        item = self._withheld.popleft()
        if not self._withheld:
            self._withheld = None
        return item

    @property
    def limit(self) -> int:
        """The last id that this stay may be given now."""
        return self.room.head if self.end is None else self.end


class Member:
    """A connection as the broker sees it, from its first room to its departure."""

    __slots__ = ("current", "gone", "leaving", "outlet", "outstanding", "stays", "username")

    def __init__(self, username: str, outlet: Outlet) -> None:
        self.username = username
        self.outlet = outlet
        self.current: Stay | None = None
        self.stays: list[Stay] = []  # the programme: what is still to be read, in order (two at most)
        self.outstanding = 0  # posted messages without an outcome
        self.gone = False  # the connection is ending: nothing reaches it any more
        self.leaving = False  # the departure waits for the last outstanding outcome
