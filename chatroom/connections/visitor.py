"""A visitor: who posts or reads in a room by single requests, and isn't a member of it.

Owns the visits of a connection that is kept for requests, and the wait for outcomes. Rules:

1. A visitor is in no list of members, and is offered nothing. The room stays in use for it (`Room.refcount`).
2. What it posts is a draft like that of any member, so its order, its commit and its retries are theirs.
3. A visit lasts as long as the connection is kept and asks for the same room under the same name. So who
   posts again and again where nobody is doesn't have the room opened for each message.
4. Nobody waits longer than ANSWER_SECONDS for an outcome. The draft stays with the broker, and its visit ends
   when the outcome is known.

It doesn't know HTTP.
"""

from collections.abc import Callable, Sequence

import trio

from chatroom.auth.rights import Rights
from chatroom.connections.timers import Timed
from chatroom.core.errors import Disconnect
from chatroom.core.messages import Act, Outcome, Unknown
from chatroom.rooms.broker import Broker
from chatroom.rooms.entries import Hold, MemberDraft
from chatroom.rooms.room import NO_RIGHTS, Member, Room, Subscription

ANSWER_SECONDS = 4.0
"""How long a request may wait for the store. A shared store's own answer comes within 3."""
LOOK_SECONDS = 0.5
"""How often it is looked whether one has waited that long."""


class Visitor:
    """A visitor in one room. For the broker it is the MessageSink of its `member`."""

    __slots__ = ("_broker", "_done", "_gone", "_outcome", "_subscription", "member", "room")

    def __init__(self, username: str, room: Room, broker: Broker, rights: Rights) -> None:
        """`room` is held for it."""
        self._broker = broker
        self._done: trio.Event | None = None
        self._gone = False
        self._outcome: Outcome | None = None
        self.room = room
        self.member = Member(username, self, silent=True)
        self.member.rights = rights
        self.member.moderator = rights.can(room.name, "m")
        self.member.current = self._subscription = Subscription(self.member, room)

    def fits(self, username: str, room: str, rights: Rights) -> bool:
        """Whether it may go on as this one. Not while the outcome of what it has posted isn't known."""
        member = self.member
        same = member.username == username and self.room.name == room and member.rights == rights
        return same and not (member.outstanding or self.room.replaced)

    async def post(self, text: str, cid: str | None, act: Act | None, patience: "Patience") -> Outcome:
        """Hand in a draft, and wait for its outcome. If this is cancelled, the draft may be stored or not."""
        draft = MemberDraft(self.member, text, cid, act)
        visitors, member = self._broker.rooms.visitors, self.member
        self._done, self._outcome = trio.Event(), None
        member.outstanding += 1
        visitors.add(member)
        patience.begin(self._done)
        try:
            if not self._broker.submit_nowait(draft):
                with trio.fail_after(ANSWER_SECONDS):
                    await self._broker.submit(draft)
        except (trio.Cancelled, trio.TooSlowError) as failed:
            member.outstanding -= 1
            visitors.remove(member)
            patience.end(self._done)
            if isinstance(failed, trio.TooSlowError):
                return Unknown()
            raise
        try:
            await self._done.wait()
        finally:
            patience.end(self._done)
        return self._outcome or Unknown()

    def leave(self) -> None:
        """The visit is over, at the latest when the outcome is known."""
        if self.member.outstanding:
            self._gone = True
        else:
            self._broker.release(self._subscription)

    # For the broker: see MessageSink

    def settled(self, outcome: Outcome) -> None:
        """See MessageSink."""
        self._outcome = outcome
        rooms = self._broker.rooms
        rooms.visitors.remove(self.member)
        if self._gone:
            rooms.release(self._subscription)
        if self._done is not None:
            self._done.set()

    def offer(self, _data: bytes, _ends: Sequence[int]) -> int:
        """See MessageSink. Never called."""
        return 0

    def wake(self) -> None:
        """See MessageSink."""

    def answer(self, _payload: bytes) -> None:
        """See MessageSink: the outcome says it as well."""

    def reply(self, _payload: bytes) -> None:
        """See MessageSink."""

    def replied(self) -> None:
        """See MessageSink."""

    def end(self, _why: Disconnect) -> None:
        """See MessageSink."""


class Patience:
    """Ends waits that take too long, for all visitors together: a timeout for each would cost more.

    `watch` has `on_timer` called.
    """

    __slots__ = ("_waiting", "_watch", "_watched")

    def __init__(self, watch: Callable[[Timed], None]) -> None:
        self._watch = watch
        self._watched = False
        self._waiting: dict[trio.Event, float] = {}  # until when; the first ones first

    def begin(self, done: trio.Event) -> None:
        """Set the event in ANSWER_SECONDS, unless `end` is called before."""
        self._waiting[done] = trio.current_time() + ANSWER_SECONDS
        if not self._watched:
            self._watched = True
            self._watch(self)

    def end(self, done: trio.Event) -> None:
        """The wait is over."""
        self._waiting.pop(done, None)

    def on_timer(self, now: float) -> float:
        """End the waits that are due. Returns the seconds until the next call."""
        self._watched = bool(self._waiting)
        for done in [done for done, until in self._waiting.items() if until <= now]:
            done.set()
        return LOOK_SECONDS if self._watched else float("inf")


class Visits:
    """The visits of one connection: one at a time."""

    __slots__ = ("_broker", "_visitor")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._visitor: Visitor | None = None

    async def begin(self, username: str, room: str, rights: Rights) -> Visitor:
        """The visitor, in a room that is in use from now on. Raises what prevents that, also TooSlowError."""
        visitor = self._visitor
        if visitor is not None and visitor.fits(username, room, rights):
            return visitor
        self.end()
        held = self._broker.hold_nowait(room)
        if held is None:
            opening = _Opening(self._broker)
            with trio.fail_after(ANSWER_SECONDS):
                await self._broker.submit(Hold(room, opening.held))
                held = await opening.wait()
        self._visitor = Visitor(username, held, self._broker, rights)
        return self._visitor

    def end(self) -> None:
        """There is no further request, or one of another kind."""
        if self._visitor is not None:
            self._visitor.leave()
            self._visitor = None


class _Opening:
    """The wait for a room. A room that nobody waits for any more is given back."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._found: Room | Exception | None = None
        self._event = trio.Event()
        self._abandoned = False

    def held(self, found: Room | Exception) -> None:
        """The room is held, or can't be."""
        self._found = found
        self._event.set()
        if self._abandoned:
            self._give_back()

    async def wait(self) -> Room:
        """The room. Raises what prevents that."""
        try:
            await self._event.wait()
        except trio.Cancelled:
            self._abandoned = True
            self._give_back()
            raise
        if isinstance(self._found, Room):
            return self._found
        assert self._found is not None
        raise self._found

    def _give_back(self) -> None:
        if isinstance(self._found, Room):
            Visitor("", self._found, self._broker, NO_RIGHTS).leave()
