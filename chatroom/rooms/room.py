"""One room as the broker sees it: the log's head, who is in it, and what the current batch brings.

1. Only the broker changes a room, and never while a fan-out of that room is under way.
2. `head` is the last id fanned out, never the store's maximum.
3. Messages that the engine has out of order are shown in the order of their ids, without a hole.
4. A subscription that was opened or ended in the middle of a broadcast is owed exactly the events of its
   time there.
5. Stored messages are told at once, and with them all that waits. Presence and typing alone may wait for
   a moment that grows with the room, so that a storm of joins is told in few broadcasts.

The reply to a join: `welcome`, or `switched`, made when it is given, as the room stands then.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import overload

from chatroom.core.messages import Head, Message
from chatroom.engines.engine import Engine
from chatroom.protocol import events
from chatroom.rooms import sequence
from chatroom.rooms.entries import Enter
from chatroom.rooms.ring import Ring, RingBudget
from chatroom.rooms.roster import Roster
from chatroom.rooms.subscription import Resume, RoomEvent, Subscription, start_of_replay
from chatroom.websocket.framing import Pieces, text_frame, text_frame_of

BATCHING_FACTOR = 9
"""Presence and typing alone wait nine times as long as the last telling took: whatever it costs here, they
take a tenth of the time at most."""

MAX_TYPING = 1000
"""Typing marks that wait to be told. Nobody is shown more; in a very big room the wait would ever grow."""
MAX_PRESENCE = 1000
"""So many joins and leaves that wait are told at once: the list of them is not to grow on."""


class Broadcast:
    """The frames of one room and batch as one bytes object, and who gets which of them.

    Frames are added until it is sealed; `after` is the last id before them. `ephemera` are those that aren't
    stored, `places` where they stand among all; so many as `presence` reach up to the last joined or left, of
    which there are `presences`. `skips` has for each username where the frames stand that it must not get.
    """

    __slots__ = (
        "after",
        "data",
        "ends",
        "ephemera",
        "frames",
        "places",
        "presence",
        "presences",
        "skips",
        "stored",
    )

    def __init__(self, after: int) -> None:
        self.after = after
        self.frames: list[bytes] = []
        self.ephemera: list[RoomEvent] = []
        self.places: list[int] = []
        self.presence = 0
        self.presences = 0
        self.skips: dict[str, list[int]] = {}
        self.data = b""
        self.ends: Sequence[int] = ()
        self.stored = 0

    def add(self, event: RoomEvent) -> None:
        """One frame more that isn't that of a stored message."""
        place = len(self.frames)
        self.frames.append(event.frame)
        self.ephemera.append(event)
        self.places.append(place)
        if event.presence:
            self.presence = len(self.ephemera)
            self.presences += 1
        if event.skip is not None:
            self.skips.setdefault(event.skip, []).append(place)

    def seal(self) -> None:
        """Nothing will be added any more: make the bytes. Those of a lone frame are the frame itself."""
        frames = self.frames
        if len(frames) == 1:
            self.data = frames[0]
            self.ends = (len(self.data),)
        else:
            self.data = b"".join(frames)
            self.ends = tuple(accumulate(map(len, frames)))
        self.stored = len(frames) - len(self.ephemera)

    def reach(self, taken: int) -> int:
        """The id up to which one has come who was given the first `taken` frames."""
        return self.after + taken - bisect_left(self.places, taken)

    def without(self, username: str) -> tuple[bytes, Sequence[int]]:
        """The bytes and ends of the frames that are for `username`, made anew each time.

        It is not kept: with very many who type at once, that would be very many bytes.
        """
        pieces, start = [], 0
        view = memoryview(self.data)
        for place in self.skips[username]:
            pieces.append(view[start : self.ends[place - 1] if place else 0])
            start = self.ends[place]
        pieces.append(view[start:])
        return b"".join(pieces), EndsWithout(self.ends, self.skips[username])

    def place(self, username: str, taken: int) -> int:
        """How many frames those are of which `username` has been given `taken`."""
        for place in self.skips.get(username, ()):
            taken += place <= taken
        return taken


class EndsWithout(Sequence[int]):
    """The ends of frames of which a few are left out: worked out where they are looked at, and not before."""

    __slots__ = ("_ends", "_gaps")

    def __init__(self, ends: Sequence[int], gaps: Sequence[int]) -> None:
        self._ends = ends
        self._gaps = gaps

    def __len__(self) -> int:
        return len(self._ends) - len(self._gaps)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        left_out = 0
        for gap in self._gaps:
            if gap > index:
                break
            index += 1
            left_out += self._ends[gap] - (self._ends[gap - 1] if gap else 0)
        return self._ends[index] - left_out


class Room:
    """A room with members, or about to have some."""

    __slots__ = (
        "_budget",
        "_known_pending",
        "_pending",
        "doubted",
        "due",
        "epoch",
        "head",
        "name",
        "number",
        "previous_head",
        "reading",
        "refcount",
        "replaced",
        "ring",
        "roster",
        "sequence",
        "subscriptions",
        "urgent",
    )

    def __init__(self, name: str, head: Head, budget: RingBudget, *, shared: bool = False) -> None:
        """`shared`: other nodes have members in it as well."""
        self.name = name
        self.epoch = head.epoch
        self.head = head.last_id
        self._budget = budget
        self.ring = Ring(budget, head.last_id)
        self.sequence = sequence.Sequence(head.last_id)
        self.roster = Roster(shared=shared)
        self.subscriptions: dict[Subscription, None] = {}
        self.number = 0  # of the last broadcast
        self.previous_head = head.last_id  # the head before it
        self.due = -math.inf  # when the next broadcast without a stored message may go out
        self.refcount = 0  # commands on their way, and readers not through, that need this room to stay
        self._pending: Broadcast | None = None  # gathered; None, as the next one, to be small
        # How many of its ephemera a subscription knows already that was told of them alone.
        self._known_pending: dict[Subscription, int] | None = None
        self.urgent = False  # a stored message waits to be told
        self.reading = False  # what is missing is being read from the log
        self.doubted = False  # its log may have been replaced: to be asked
        self.replaced = False  # its log is gone: another Room has the name now, and its members are ending

    @property
    def waiting(self) -> bool:
        """There is something to tell that has not been told."""
        return self._pending is not None

    @property
    def behind(self) -> bool:
        """The log is to be asked for what is missing here."""
        return self.doubted or self.sequence.gap is not None

    def is_ready(self, now: float) -> bool:
        """What waits is to be told now, though no stored message is among it."""
        return self._pending is not None and (now >= self.due or self._pending.presences >= MAX_PRESENCE)

    def answer_members(self, subscription: Subscription, cid: str | None) -> None:
        """`subscription` wants to know who is here: tell it alone what waits, and then the list."""
        self._tell_ahead(subscription)
        names = self.roster.everyone(subscription.member.username)
        frame = text_frame_of(events.members(self.name, names, cid))
        subscription.live = False
        subscription.answer_behind(frame, self.head)
        subscription.member.sink.wake()

    def tell_members(self, subscription: Subscription) -> Pieces:
        """The frame that says who is here, where presence was dropped: what waits, it tells as well."""
        self._note_known(subscription)
        names = self.roster.everyone(subscription.member.username)
        return text_frame_of(events.members(self.name, names))

    def open(self, subscription: Subscription) -> None:
        """`subscription` is told now how the room stands: from here on it is owed what comes."""
        subscription.begin = subscription.cursor
        subscription.seen = self.number
        self._note_known(subscription)

    def _tell_ahead(self, subscription: Subscription) -> None:
        """Owe `subscription` what waits now, and no more of it later."""
        if self._pending is not None:
            known = self._known_pending.get(subscription, 0) if self._known_pending else 0
            subscription.queue(self._pending, known)
        self._note_known(subscription)

    def _note_known(self, subscription: Subscription) -> None:
        """`subscription` knows all that waits now: of the next broadcast it gets the rest from its writer."""
        if self._pending is not None and self._pending.ephemera:
            if self._known_pending is None:
                self._known_pending = {}
            self._known_pending[subscription] = len(self._pending.ephemera)

    def show(self, message: Message) -> None:
        """Show a stored message to everybody."""
        assert message.id == self.head + 1, "ids are dense"
        frame = text_frame(events.message(self.name, message))
        self.ring.append(frame)
        if self._pending is None:
            self._pending = Broadcast(self.head)
        self._pending.frames.append(frame)
        self.head = message.id
        self.urgent = True

    def tell_typing(self, username: str, active: bool) -> None:
        """Show the others that `username` has begun or stopped typing; or not, where very many do."""
        if self._pending is not None and len(self._pending.ephemera) - self._pending.presences >= MAX_TYPING:
            return
        frame = text_frame(events.typing(self.name, username, active))
        self._add(RoomEvent(frame, self.head, skip=username))

    def enter(self, subscription: Subscription) -> bool:
        """`subscription` is here from now on; true if its name is new on this node."""
        self.subscriptions[subscription] = None
        return self.roster.enter(subscription.member.username)

    def end_subscription(self, subscription: Subscription) -> None:
        """`subscription` is to end here, owed all that there was to tell so far."""
        self._tell_ahead(subscription)
        subscription.live = False
        subscription.end = self.head

    def leave(self, subscription: Subscription) -> bool:
        """`subscription` is here no more; true if it was the last of its name on this node."""
        if self._known_pending:
            self._known_pending.pop(subscription, None)
        del self.subscriptions[subscription]
        return self.roster.leave(subscription.member.username)

    def tell_joined(self, username: str) -> None:
        """Show the others that `username` has come."""
        frame = text_frame(events.joined(self.name, username))
        self._add(RoomEvent(frame, self.head, presence=True, skip=username))

    def tell_left(self, username: str) -> None:
        """Show everybody that `username` is gone; but not who bears the name, and is back."""
        skip = username if username in self.roster.here else None
        self._add(RoomEvent(text_frame(events.left(self.name, username)), self.head, True, skip=skip))

    def relist(self) -> None:
        """The list of members has changed as a whole: everybody is told it instead of what has changed."""
        for subscription in self.subscriptions:
            if subscription.join_reply is None:
                subscription.live = False
                subscription.presence_dropped = True
                subscription.member.sink.wake()

    def pop_broadcast(self) -> Broadcast:
        """What there is to tell; those who arrived in the middle of it get the rest from their writers."""
        broadcast, self._pending = self._pending or Broadcast(self.head), None
        self.urgent = False
        broadcast.seal()
        self.previous_head = broadcast.after
        self.number += 1
        if self._known_pending is not None:
            known_pending, self._known_pending = self._known_pending, None
            for subscription, known in known_pending.items():
                subscription.seen = self.number
                if broadcast.stored or known < len(broadcast.ephemera):
                    subscription.queue(broadcast, known)
                    subscription.member.sink.wake()
        return broadcast

    def delay_presence(self, now: float, spent: float) -> None:
        """Telling the last broadcast took `spent` seconds, up to `now`."""
        self.due = now + BATCHING_FACTOR * spent

    def _add(self, event: RoomEvent) -> None:
        if self._pending is None:
            self._pending = Broadcast(self.head)
        self._pending.add(event)

    def close(self) -> None:
        """Give back what the room holds."""
        self._budget.close(self.ring)


class WelcomeOrSwitched:
    """See JoinReply."""

    __slots__ = ("_engine", "_entry", "_history", "_limits", "_recovered", "first")

    def __init__(self, entry: Enter, engine: Engine, history: int, limits: str) -> None:
        self._entry = entry
        self._engine = engine
        self._history = history
        self._limits = limits
        self._recovered: bool | None = None
        self.first = 0

    def begin(self, subscription: Subscription) -> None:
        """See JoinReply."""
        room, since = subscription.room, self._entry.since
        start = start_of_replay(
            None if since is None else Resume(since, self._entry.epoch or ""),
            epoch=room.epoch,
            first_id=max(self.first, self._engine.first_id(room.name)),
            last_id=room.head,
            history=self._history,
        )
        subscription.cursor, subscription.seen, self._recovered = start.after, room.number, start.recovered

    def give(self, subscription: Subscription) -> Pieces:
        """See JoinReply."""
        room, username = subscription.room, subscription.member.username
        room.open(subscription)
        members = room.roster.others(username)
        if self._entry.switch:
            event = partial(events.switched, room.name, members, self._entry.cid)
        else:
            event = partial(events.welcome, room.name, username, members, limits=self._limits)
        replay = room.head - subscription.cursor
        return text_frame_of(
            event(epoch=room.epoch, last_id=room.head, replay=replay, recovered=self._recovered)
        )
