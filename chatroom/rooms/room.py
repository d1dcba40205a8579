"""A subscription, and its room. Each needs the other, so they are one module.

A subscription: one connection in one room, with its cursor into the room's log and what is queued beside it.

1. A live subscription has been given everything up to the room's head; the broker offers it what comes.
2. A lagging subscription keeps its cursor, and its connection's writer reads on from there. Stored messages
   are never queued for it.
3. Ephemera that a lagging subscription may still get are queued by reference, few of them, each with the id
   after which it belongs. Past that they are dropped; if presence was among them, `members` follows.
4. A subscription that has ended is read to its `end` and no further.
5. A subscription begins when its connection's writer comes to it: `join_reply` makes `welcome` or `switched`
   then, as the room stands. Before that it is owed nothing. So all members that come at once are told the
   same list.

A room: the log's head, the members, and what the current batch brings.

6. Only the broker changes a room, and never while a fan-out of that room is under way.
7. `head` is the last id that was fanned out, never the store's maximum.
8. Messages that the engine has out of order are shown in the order of their ids, without a hole.
9. A subscription that begins or ends in the middle of a broadcast is owed exactly the events of its time
   there.
10. A frame whose message was changed is forgotten. `changes` has that for whoever reads the log meanwhile.
11. Stored messages go out at once, and everything that waits goes out with them. Presence and typing alone
    may wait for a moment that grows with the room, so that a storm of joins is told in few broadcasts.

Followers of a room are connections in other rooms that are told of its activity, not of its texts:

12. A room tells them once a second at most. Who isn't live then is told when it is, once for each room.

Neither knows the broker, nor the connection behind a `MessageSink`.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from chatroom.auth.rights import Rights
from chatroom.core.errors import Disconnect
from chatroom.core.messages import Deleted, Edited, Head, Message, Moderated, Outcome, Record
from chatroom.core.sanctions import MAX_SANCTIONS, REMOVES, Action, Sanctions
from chatroom.engines.changes import sanction_of
from chatroom.protocol import events
from chatroom.rooms import sequence
from chatroom.rooms.activity import ACTIVITY_SECONDS, Activity, Followers
from chatroom.rooms.broadcast import Broadcast, RoomEvent
from chatroom.rooms.changes import Changes
from chatroom.rooms.ring import Ring, RingBudget
from chatroom.rooms.roster import Roster
from chatroom.websocket.framing import Pieces, text_frame, text_frame_of

BATCHING_FACTOR = 9
"""Presence and typing alone wait so many times as long as the last fan-out took. Whatever it costs here, they
take a tenth of the time at most."""

MAX_TYPING = 1000
"""Typing marks that may wait.

Further ones are dropped: in a very big room the wait would grow without end.
"""
MAX_PRESENCE = 1000
"""When so many joins and leaves wait, they go out at once, so that their list doesn't grow without end."""
NO_RIGHTS = Rights(())
NO_SANCTIONS = Sanctions()
"""Shared by rooms that have none."""
REMOVED = {Action.KICK: "kicked", Action.BAN: "banned"}
"""What is said to whom a moderator gave no reason."""
MAX_QUEUED = 256
"""Ephemera that are queued for one lagging subscription."""


# Subscriptions


class MessageSink(Protocol):
    """What the broker may do to a connection. Nothing here waits or raises."""

    def offer(self, data: bytes, ends: Sequence[int]) -> int:
        """Hand whole frames to the socket if it takes them at once. Return how many are now on their way."""
        ...

    def wake(self) -> None:
        """There is something to read on for."""
        ...

    def answer(self, payload: bytes) -> None:
        """Send the answer to a posted message."""
        ...

    def settled(self, outcome: Outcome) -> None:
        """A posted message has got its outcome, and its answer if it needs one."""
        ...

    def reply(self, payload: bytes) -> None:
        """Send the answer to the one other command that is under way."""
        ...

    def replied(self) -> None:
        """The answer to the one other command is on its way, as `welcome`, `switched` or a queued reply."""
        ...

    def end(self, why: Disconnect) -> None:
        """Ask for the connection's end."""
        ...


class JoinReply(Protocol):
    """`welcome` or `switched`, made when it is given: as the room stands then.

    `first` is the lowest id known to be kept.
    """

    first: int

    def begin(self, subscription: "Subscription") -> None:
        """Set the cursor of `subscription` to where it would begin now."""
        ...

    def give(self, subscription: "Subscription") -> Pieces:
        """The frame, for where `subscription` has begun. From now on the subscription is owed what comes."""
        ...


class Subscription:
    """One connection in one room."""

    __slots__ = (
        "_queue",
        "begin",
        "cursor",
        "end",
        "join_reply",
        "last_posted",
        "live",
        "member",
        "offer",
        "presence_dropped",
        "room",
        "seen",
    )

    def __init__(self, member: "Member", room: "Room", join_reply: JoinReply | None = None) -> None:
        self.member = member
        self.room = room
        self.cursor = self.begin = 0
        self.join_reply = join_reply
        self.live = False
        self.end: int | None = None
        self.seen = 0  # the number of the last broadcast that was offered here or accounted for
        self.presence_dropped = False
        self.last_posted = 0  # the id of the last message that this connection has posted here
        self.offer: Callable[[bytes, Sequence[int]], int] = member.sink.offer
        self._queue: deque[RoomEvent] | None = None

    def lag(self, broadcast: "Broadcast", taken: int = 0) -> None:
        """The first `taken` frames of `broadcast` are on their way; the subscription lags from there."""
        self.live = False
        if self.join_reply is not None:
            return
        if taken:
            self.cursor = max(self.cursor, broadcast.reach(taken))
        if broadcast.ephemera:
            self.queue(broadcast, bisect_left(broadcast.places, taken))

    def queue(self, broadcast: "Broadcast", first: int) -> None:
        """Queue the ephemera of `broadcast` from the index `first` on, as many as there is room for.

        The cost is bounded, however many they are.
        """
        self.live = False
        if self.presence_dropped or self.member.silent or first >= len(broadcast.ephemera):
            return
        queued = len(self._queue) if self._queue is not None else 0
        end = first + max(0, MAX_QUEUED - queued)
        kept = broadcast.ephemera[first:end]
        if self.member.username in broadcast.skips:
            kept = [event for event in kept if event.skip != self.member.username]
        self._insert(kept)
        self.presence_dropped = end < broadcast.presence

    def answer_behind(self, frame: Pieces, position: int) -> None:
        """Give the answer to a member's command behind the message `position`, and never drop it."""
        last = self._queue[-1].position if self._queue else 0
        self._insert([RoomEvent(b"", max(position, last), reply=frame)])

    def _insert(self, events: Sequence[RoomEvent]) -> None:
        if self._queue is None:
            self._queue = deque(events) if events else None
            return
        # An answer may have its place ahead, behind messages of a broadcast that comes here only now.
        ahead: list[RoomEvent] = []
        while events and self._queue and self._queue[-1].position > events[0].position:
            ahead.append(self._queue.pop())
        self._queue += sorted([*events, *ahead], key=lambda event: event.position) if ahead else events

    @property
    def next_queued(self) -> RoomEvent | None:
        """The oldest queued event; None if there is none."""
        return self._queue[0] if self._queue else None

    def pop_queued(self) -> RoomEvent:
        """Remove and return the oldest queued event."""
        assert self._queue is not None
        event = self._queue.popleft()
        if not self._queue:
            self._queue = None
        return event

    @property
    def limit(self) -> int:
        """The last id that may be given now.

        While a fan-out is under way that has not come here yet, that is the head before it: ephemera of the
        broadcast may belong before its messages.
        """
        if self.end is not None:
            return self.end
        return self.room.head if self.seen >= self.room.number else self.room.previous_head


class Member:
    """A connection as the broker sees it, from its first room to its departure."""

    __slots__ = (
        "current",
        "follows",
        "gone",
        "missed",
        "moderator",
        "outstanding",
        "rights",
        "silent",
        "sink",
        "subscriptions",
        "unshown",
        "username",
    )

    def __init__(self, username: str, sink: MessageSink, *, silent: bool = False) -> None:
        """`silent`: nobody is told of it, and it is told of nobody: its presence isn't counted."""
        self.username = username
        self.silent = silent
        self.sink = sink
        self.current: Subscription | None = None
        self.subscriptions: list[Subscription] = []  # the backlog: still to be read, in order (two at most)
        self.outstanding = 0  # posted messages without an answer
        self.unshown = 0  # of these, stored behind messages that this node has yet to show
        self.gone = False  # the connection is ending: nothing reaches it any more
        self.rights = NO_RIGHTS
        self.moderator = False  # it has the right to moderate its room: sanctions don't bite
        self.follows: tuple[Room, ...] = ()  # rooms of whose activity it is told
        self.missed: dict[Room, Activity] | None = None  # what it could not be told yet

    def renew(self, rights: Rights) -> None:
        """These are its rights from now on."""
        self.rights = rights
        self.moderator = self.current is not None and rights.can(self.current.room.name, "m")


# Rooms


class Room:
    """A room that has members, or will soon."""

    __slots__ = (
        "_budget",
        "_known_pending",
        "_pending",
        "activity",
        "activity_due",
        "changes",
        "doubted",
        "due",
        "epoch",
        "followers",
        "head",
        "last_ts",
        "name",
        "number",
        "others",
        "previous_head",
        "reading",
        "refcount",
        "removals",
        "replaced",
        "ring",
        "roster",
        "sanctions",
        "sequence",
        "subscriptions",
        "urgent",
    )

    def __init__(self, name: str, head: Head, budget: RingBudget, *, shared: bool = False) -> None:
        """`shared`: other nodes have members in it as well."""
        self.name = name
        self.epoch = head.epoch
        self.head = head.last_id
        self.others = head.others  # of all records so far, those that are no messages
        self.sanctions = Sanctions(head.sanctions) if head.sanctions else NO_SANCTIONS
        self.removals: list[Moderated] | None = None  # of names that are to leave once this was told
        self.changes = Changes()  # the place behind all that has been changed
        self.last_ts = 0  # the time of the last record that was shown; 0: none was
        self.followers: Followers[Member] | None = None
        self.activity: Activity | None = None  # what followers are to be told
        self.activity_due = -math.inf  # when they may be told again
        self._budget = budget
        self.ring = Ring(budget, head.last_id)
        self.sequence = sequence.Sequence(head.last_id)
        self.roster = Roster(shared=shared)
        self.subscriptions: dict[Subscription, None] = {}
        self.number = 0  # of the last broadcast
        self.previous_head = head.last_id  # the head before it
        self.due = -math.inf  # when the next broadcast without a stored message may go out
        self.refcount = 0  # commands on their way, and readers still behind, that need this room
        self._pending: Broadcast | None = None  # the next one; None while it would be empty, to be small
        # How many of the pending ephemera a subscription knows already, if it was told of them alone.
        self._known_pending: dict[Subscription, int] | None = None
        self.urgent = False  # a stored message is pending
        self.reading = False  # what is missing is being read from the log
        self.doubted = False  # its log may have been replaced, and has to be asked
        self.replaced = False  # its log is gone: another Room has the name now, and its members are ending

    @property
    def waiting(self) -> bool:
        """Whether a broadcast is pending."""
        return self._pending is not None

    @property
    def behind(self) -> bool:
        """Whether the log has to be asked for what is missing here."""
        return self.doubted or self.sequence.gap is not None

    def is_ready(self, now: float) -> bool:
        """Whether the pending broadcast may go out now, though it has no stored message."""
        return self._pending is not None and (now >= self.due or self._pending.presences >= MAX_PRESENCE)

    def answer_members(self, subscription: Subscription, cid: str | None) -> None:
        """Answer a command `members` of `subscription`: give it alone what is pending, and then the list."""
        self._tell_ahead(subscription)
        names = self.roster.everyone(subscription.member.username)
        frame = text_frame_of(events.members(self.name, names, cid))
        subscription.live = False
        subscription.answer_behind(frame, self.head)
        subscription.member.sink.wake()

    def tell_members(self, subscription: Subscription) -> Pieces:
        """The list of members, for `subscription` whose presence was dropped. It includes what is pending."""
        self._note_known(subscription)
        names = self.roster.everyone(subscription.member.username)
        return text_frame_of(events.members(self.name, names))

    def begin_subscription(self, subscription: Subscription) -> None:
        """`subscription` is given its join reply now. From here on it is owed what comes."""
        subscription.begin = subscription.cursor
        subscription.seen = self.number
        self._note_known(subscription)

    def _tell_ahead(self, subscription: Subscription) -> None:
        """Queue for `subscription` what is pending now, so that it gets only the rest later."""
        if self._pending is not None:
            known = self._known_pending.get(subscription, 0) if self._known_pending else 0
            subscription.queue(self._pending, known)
        self._note_known(subscription)

    def _note_known(self, subscription: Subscription) -> None:
        """`subscription` knows all that is pending. Its writer gives it the rest of that broadcast."""
        if self._pending is not None and self._pending.ephemera:
            if self._known_pending is None:
                self._known_pending = {}
            self._known_pending[subscription] = len(self._pending.ephemera)

    @property
    def messages(self) -> int:
        """How many messages it has ever had, without other records."""
        return self.head - self.others

    def show(self, record: Record) -> None:
        """Show a stored record to everybody."""
        assert record.id == self.head + 1, "ids are dense"
        if not isinstance(record, Message):
            self._take(record)
        elif self.followers is not None:
            self._note_activity(record)
        frame = text_frame(events.record(self.name, record))
        self.ring.append(frame)
        if self._pending is None:
            self._pending = Broadcast(self.head)
        self._pending.frames.append(frame)
        self.head = record.id
        self.last_ts = record.ts
        self.urgent = True

    def _note_activity(self, message: Message) -> None:
        """A message has come of which followers are to be told. The head hasn't moved yet."""
        said = Activity(message.id, self.messages + 1, message.username, self.roster.called(message.text))
        self.activity = said if self.activity is None else self.activity.then(said)

    def pop_activity(self, now: float) -> Activity:
        """What followers are told now. They are told again in ACTIVITY_SECONDS."""
        assert self.activity is not None
        activity, self.activity = self.activity, None
        self.activity_due = now + ACTIVITY_SECONDS
        return activity

    def _take(self, record: Edited | Deleted | Moderated) -> None:
        """A record that is no message takes effect here."""
        self.others += 1
        if not isinstance(record, Moderated):
            self.changes = self.changes.add(record)
            self.ring.forget(record.about)
            if record.replaces != record.about:
                self.ring.forget(record.replaces)
            return
        if self.sanctions is NO_SANCTIONS:
            self.sanctions = Sanctions()
        self.sanctions.apply(record.action, sanction_of(record))
        if len(self.sanctions) > MAX_SANCTIONS:  # so some have ended
            self.sanctions.expire(record.ts)
        if record.action in REMOVES:
            self.removals = [*(self.removals or ()), record]

    def tell_typing(self, username: str, active: bool) -> None:
        """Show the others that `username` has begun or stopped typing, unless very many typing marks wait."""
        if self._pending is not None and len(self._pending.ephemera) - self._pending.presences >= MAX_TYPING:
            return
        frame = text_frame(events.typing(self.name, username, active))
        self._add(RoomEvent(frame, self.head, skip=username))

    def enter(self, subscription: Subscription) -> bool:
        """Add `subscription`. Return whether its name is new on this node."""
        self.subscriptions[subscription] = None
        return not subscription.member.silent and self.roster.enter(subscription.member.username)

    def end_subscription(self, subscription: Subscription) -> None:
        """End `subscription` at the head. It is still owed all that is pending."""
        self._tell_ahead(subscription)
        subscription.live = False
        subscription.end = self.head

    def leave(self, subscription: Subscription) -> bool:
        """Remove `subscription`. Return whether it was the last of its name on this node."""
        if self._known_pending:
            self._known_pending.pop(subscription, None)
        del self.subscriptions[subscription]
        return not subscription.member.silent and self.roster.leave(subscription.member.username)

    def tell_joined(self, username: str) -> None:
        """Show the others that `username` has come."""
        frame = text_frame(events.joined(self.name, username))
        self._add(RoomEvent(frame, self.head, presence=True, skip=username))

    def tell_left(self, username: str) -> None:
        """Show everybody that `username` is gone, but for connections of that name that have come back."""
        skip = username if username in self.roster.here else None
        self._add(RoomEvent(text_frame(events.left(self.name, username)), self.head, True, skip=skip))

    def relist(self) -> None:
        """The list of members has changed as a whole: members are given the list instead of the changes."""
        for subscription in self.subscriptions:
            if subscription.join_reply is None and not subscription.member.silent:
                subscription.live = False
                subscription.presence_dropped = True
                subscription.member.sink.wake()

    def pop_broadcast(self) -> Broadcast:
        """The pending broadcast. Subscriptions that know a part of it get the rest from their writers."""
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
        """The last fan-out took `spent` seconds, up to `now`: presence and typing alone wait accordingly."""
        self.due = now + BATCHING_FACTOR * spent

    def _add(self, event: RoomEvent) -> None:
        if self._pending is None:
            self._pending = Broadcast(self.head)
        self._pending.add(event)

    def close(self) -> None:
        """Give back the room's share of the budget."""
        self._budget.close(self.ring)
