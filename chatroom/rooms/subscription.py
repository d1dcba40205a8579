"""A subscription: one connection in one room, with its cursor into the room's log and what is told beside it.

1. A live subscription has been given everything up to the room's head; the broker offers it what comes.
2. A lagging subscription keeps its cursor; its connection's writer reads on from there. Stored messages are
   never queued for it.
3. Ephemera that a lagging subscription may still get are queued by reference, few of them, each with the id
   after which it belongs; past that they are dropped, and if presence was among them, `members` follows.
4. A subscription that has ended is read to its `end` and no further.
5. A subscription begins when its connection's writer comes to it: `join_reply` makes `welcome` or `switched`
   then, as the room stands. Before that it is owed nothing. So all who come at once are told the same list.

Where a reader who enters a room starts: after `since`, or some messages before the end.

A recovery is whole or none: what can't be given without a gap is not called recovered.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chatroom.core.errors import Disconnect
from chatroom.websocket.framing import Pieces

if TYPE_CHECKING:
    from chatroom.rooms.room import Broadcast, Room


MAX_RECOVERED = 500
"""The most messages that a resume brings back."""


@dataclass(frozen=True, slots=True)
class Resume:
    """What a client says it has: the last id it saw, and the epoch it was told with it."""

    since: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Start:
    """The id after which the reader begins; `recovered` is None where no resume was asked for."""

    after: int
    recovered: bool | None


def start_of_replay(resume: Resume | None, *, epoch: str, first_id: int, last_id: int, history: int) -> Start:
    """Where to begin in a room whose log keeps `first_id` to `last_id`; `history` is the usual replay."""
    usual = max(last_id - history, first_id - 1, 0)
    if resume is None:
        return Start(usual, None)
    missing = last_id - resume.since
    if resume.epoch == epoch and 0 <= missing <= MAX_RECOVERED and resume.since + 1 >= first_id:
        return Start(resume.since, True)
    return Start(usual, False)


MAX_QUEUED = 256


class MessageSink(Protocol):
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

    def replied(self) -> None:
        """`welcome` or `switched` is on its way: that was the answer."""
        ...

    def end(self, why: Disconnect) -> None:
        """Ask for the connection's end."""
        ...


class RoomEvent(NamedTuple):
    """One frame beside the stored messages.

    `position` is the id before it; `skip` is the username that must not get it; `presence` marks joined and
    left; `reply` is the answer to a member's command, which is in no broadcast and never dropped.
    """

    frame: bytes
    position: int
    presence: bool = False
    reply: Pieces = ()
    skip: str | None = None


class JoinReply(Protocol):
    """`welcome` or `switched`, made when it is given: as the room stands then.

    `first` is the lowest id that is known to be kept.
    """

    first: int

    def begin(self, subscription: "Subscription") -> None:
        """Set the cursor of `subscription` to where it would begin now."""
        ...

    def give(self, subscription: "Subscription") -> Pieces:
        """The frame, for where `subscription` has begun; from now on that is owed what comes."""
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

    def __init__(self, member: "Member", room: "Room", join_reply: JoinReply) -> None:
        self.member = member
        self.room = room
        self.cursor = self.begin = 0
        self.join_reply: JoinReply | None = join_reply
        self.live = False
        self.end: int | None = None
        self.seen = 0  # the number of the last batch that was offered here or reckoned with
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
        """Queue of the ephemera of `broadcast` those from the index `first` on, as many as there is room for.

        What that costs is bounded, however many they are.
        """
        self.live = False
        if self.presence_dropped or first >= len(broadcast.ephemera):
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
        """The oldest of what still waits beside the stored messages."""
        return self._queue[0] if self._queue else None

    def pop_queued(self) -> RoomEvent:
        """Remove and return the oldest of these."""
        assert self._queue is not None
        event = self._queue.popleft()
        if not self._queue:
            self._queue = None
        return event

    @property
    def limit(self) -> int:
        """The last id that may be given now.

        While a fan-out is under way that has not come here, it is the head before it: ephemera of the
        broadcast may belong before its messages.
        """
        if self.end is not None:
            return self.end
        return self.room.head if self.seen >= self.room.number else self.room.previous_head


class Member:
    """A connection as the broker sees it, from its first room to its departure."""

    __slots__ = ("current", "gone", "outstanding", "sink", "subscriptions", "unshown", "username")

    def __init__(self, username: str, sink: MessageSink) -> None:
        self.username = username
        self.sink = sink
        self.current: Subscription | None = None
        self.subscriptions: list[Subscription] = []  # still to be read, in order (two at most): the backlog
        self.outstanding = 0  # posted messages without an answer
        self.unshown = 0  # of these, stored behind others that this node has yet to show
        self.gone = False  # the connection is ending: nothing reaches it any more
