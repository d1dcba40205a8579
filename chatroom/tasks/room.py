"""One room as the broker sees it: the log's head, who is in it, and what the current batch brings.

1. Only the broker changes a room, and never while a fan-out of that room is under way.
2. `head` is the last id fanned out, never the store's maximum.
3. A stay that entered or left in the middle of a broadcast is owed exactly the items of its time there.
4. Stored messages are told at once, and with them all that waits. Presence and typing alone may wait for
   a moment that grows with the room, so that a storm of joins is told in few broadcasts.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from chatroom.pure import events
from chatroom.pure.frames import text_frame
from chatroom.pure.ring import Ring, RingBudget
from chatroom.pure.roster import Roster
from chatroom.tasks.stay import Item, Stay
from chatroom.values.messages import Head, Message

PAUSE_PER_MEMBER = 50e-6
"""Seconds. Telling a member costs about 5 µs: presence alone takes no more than a tenth of the time."""


class Broadcast:
    """The items of one room and batch as one bytes object, and who gets which of them."""

    __slots__ = ("_skipped", "data", "ends", "items", "stored")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.data = b"".join([item.frame for item in items])
        self.ends = tuple(accumulate(len(item.frame) for item in items))
        self.stored = sum(item.stored for item in items)
        self._skipped: dict[str, Broadcast | None] = {
            item.skip: None for item in items if item.skip is not None
        }

    @property
    def skips(self) -> bool:
        """Whether there is anybody who must not get all of it."""
        return bool(self._skipped)

    def for_user(self, username: str) -> "Broadcast":
        """The broadcast without the items that `username` must not get."""
        if username not in self._skipped:
            return self
        variant = self._skipped[username]
        if variant is None:
            variant = Broadcast([item for item in self.items if item.skip != username])
            self._skipped[username] = variant
        return variant


class Room:
    """A room with members, or about to have some."""

    __slots__ = (
        "_arrivals",
        "_asks",
        "_budget",
        "_items",
        "_urgent",
        "due",
        "epoch",
        "head",
        "holds",
        "name",
        "number",
        "ring",
        "roster",
        "stays",
    )

    def __init__(self, name: str, head: Head, budget: RingBudget) -> None:
        self.name = name
        self.epoch = head.epoch
        self.head = head.last_id
        self._budget = budget
        self.ring = Ring(budget, head.last_id)
        self.roster = Roster()
        self.stays: dict[Stay, None] = {}
        self.number = 0  # of the last broadcast
        self.due = -math.inf  # when the next broadcast without a stored message may go out
        self.holds = 0  # commands on their way that need this room to stay
        self._items: list[Item] | None = None  # of the next broadcast; None, as the next, to be small
        self._arrivals: dict[Stay, int] | None = None
        self._asks: list[tuple[Stay, str | None]] | None = None
        self._urgent = False

    @property
    def unused(self) -> bool:
        """Nobody is here and nobody is about to come."""
        return not self.stays and not self.holds

    @property
    def waiting(self) -> bool:
        """There is something to tell that has not been told."""
        return self._items is not None

    def is_ready(self, now: float) -> bool:
        """What waits is to be told now."""
        return self.waiting and (self._urgent or now >= self.due)

    def ask_members(self, stay: Stay, cid: str | None) -> None:
        """`stay` wants to know who is here: answered in its place, when all of this batch has been told."""
        if self._asks is None:
            self._asks = []
        self._asks.append((stay, cid))
        self._urgent = True

    def answer_asks(self) -> None:
        """Answer those who asked, after what was told them before."""
        asks, self._asks = self._asks or (), None
        self._urgent = self._urgent and self.waiting
        for stay, cid in asks:
            if stay in self.stays:
                frame = text_frame(events.members(self.name, self.roster.as_json(), cid))
                stay.lag((Item(frame, self.head, reply=True),), 0)
                stay.member.outlet.wake()

    def store(self, message: Message) -> None:
        """Show a stored message to everybody."""
        assert message.id == self.head + 1, "ids are dense"
        frame = text_frame(events.message(self.name, message))
        self.ring.append(frame)
        self.head = message.id
        self._add(Item(frame, message.id, stored=True))
        self._urgent = True

    def tell_typing(self, username: str, active: bool) -> None:
        """Show the others that `username` has begun or stopped typing."""
        frame = text_frame(events.typing(self.name, username, active))
        self._add(Item(frame, self.head, skip=username))

    def enter(self, stay: Stay, *, quiet: bool) -> None:
        """`stay` begins here; the others hear of it if the name is new."""
        username = stay.member.username
        if self.roster.enter(username) and not quiet:
            frame = text_frame(events.joined(self.name, username))
            self._add(Item(frame, self.head, presence=True, skip=username))
        self.stays[stay] = None
        stay.seen = self.number
        if self._arrivals is None:
            self._arrivals = {}
        self._arrivals[stay] = len(self._items or ())

    def end_stay(self, stay: Stay) -> None:
        """`stay` is to end here, owed all that there was to tell so far."""
        arrival = self._arrivals.get(stay, 0) if self._arrivals else 0
        stay.lag((self._items or [])[arrival:], 0)
        stay.end = self.head

    def leave(self, stay: Stay, *, quiet: bool) -> None:
        """`stay` is here no more; the others hear of it if it was the last of its name."""
        if self._arrivals:
            self._arrivals.pop(stay, None)
        del self.stays[stay]
        username = stay.member.username
        if self.roster.leave(username) and not quiet:
            frame = text_frame(events.left(self.name, username))
            self._add(Item(frame, self.head, presence=True))

    def take_broadcast(self, now: float) -> Broadcast:
        """What there is to tell; those who arrived in the middle of it get the rest from their writers."""
        items, self._items = self._items or [], None
        arrivals, self._arrivals = self._arrivals or {}, None
        self._urgent = False
        self.number += 1
        self.due = now + len(self.stays) * PAUSE_PER_MEMBER
        for stay, index in arrivals.items():
            stay.seen = self.number
            if index < len(items):
                stay.lag(items[index:], 0)
                stay.member.outlet.wake()
        return Broadcast(items)

    def _add(self, item: Item) -> None:
        if self._items is None:
            self._items = []
        self._items.append(item)

    def close(self) -> None:
        """Give back what the room holds."""
        self._budget.close(self.ring)
