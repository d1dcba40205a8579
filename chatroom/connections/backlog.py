"""The backlog of a connection: everything that its client still has to get, in order.

Owns the order of delivery to one lagging client, subscription by subscription. Rules:

1. A subscription begins with its join reply. Then come the stored messages from the cursor on, and between
   them the queued events at their positions, up to the end of the subscription or the room's head.
2. Stored messages come from the room's ring, or else from the log, but never from a queue. One read of the
   log is about as large as one write. Messages of it that aren't given yet needn't be read again.
3. A subscription goes live by a check and a switch without an await between them. Then everything shown in
   the room has been given, the current batch included.
4. If presence was dropped for the subscription, the list of members is given before it goes live. So is what
   the member missed of the rooms that it follows.
5. A switch ends the range of the old subscription, and doesn't discard it.
6. The join reply says how many messages follow, so it is given when the first of them is available. If
   messages have been trimmed meanwhile, the subscription begins with the first that is kept.

It doesn't know how bytes are sent, nor how a room is changed.
"""

from enum import Enum, auto
from itertools import accumulate
from typing import Protocol

from chatroom.core.errors import CloseCode, Disconnect, Replaced, Trimmed, replaced_room
from chatroom.engines.engine import Engine
from chatroom.protocol import events
from chatroom.rooms.room import JoinReply, Member, Subscription
from chatroom.websocket.framing import Pieces, text_frame
from chatroom.websocket.outbound import Outbound

CHUNK = 64 * 1024
READ_LIMIT = 200


class Step(Enum):
    """The result of a step."""

    MORE = auto()  # a piece was given: flush it, then take the next step
    READ = auto()  # the ring doesn't have the next messages: call `read_on`
    IDLE = auto()  # nothing to give now


class DeliveryObserver(Protocol):
    """Gets the progress of a backlog. No method waits or fails."""

    def release(self, subscription: Subscription) -> None:
        """A subscription that ended by a switch has been given to its end. Its room may be released."""

    def delivered(self, count: int) -> None:
        """`count` stored messages have been given."""


class Backlog:
    """The backlog of one member. Only its connection's writer uses it."""

    __slots__ = ("_engine", "_member", "_observer", "_outbound")

    def __init__(
        self, member: Member, outbound: Outbound, engine: Engine, observer: DeliveryObserver
    ) -> None:
        self._member = member
        self._outbound = outbound
        self._engine = engine
        self._observer = observer

    @property
    def complete(self) -> bool:
        """Everything shown so far has been given, and every posted message has been answered."""
        subscriptions = self._member.subscriptions
        if len(subscriptions) != 1 or self._member.outstanding:
            return False
        return subscriptions[0].live and subscriptions[0].seen >= subscriptions[0].room.number

    def step(self) -> Step:
        """Give the next piece, if it needs no read of the log."""
        subscriptions = self._member.subscriptions
        if not subscriptions or subscriptions[0].live:
            return Step.IDLE
        if self._outbound.broken or self._outbound.shut:
            return self._skip()
        subscription = subscriptions[0]
        if subscription.join_reply is not None:
            subscription.join_reply.begin(subscription)
            if self._is_out_of_reach(subscription):
                return Step.READ
            self._give_join_reply(subscription, subscription.join_reply)
            return Step.MORE
        queued = subscription.next_queued
        if queued is not None and queued.position <= subscription.cursor:
            self._give_queued(subscription)
            return Step.MORE
        upto = self._upto(subscription)
        if subscription.cursor < upto:
            return self._give_stored(subscription, upto)
        return self._finish(subscription)

    def _is_out_of_reach(self, subscription: Subscription) -> bool:
        """Whether there is a next message that the ring doesn't have any more."""
        upto = self._upto(subscription)
        return (
            subscription.cursor < upto
            and subscription.room.ring.slice(subscription.cursor, upto, CHUNK) is None
        )

    def _give_join_reply(self, subscription: Subscription, join_reply: JoinReply) -> None:
        subscription.join_reply = None
        self._outbound.put_pieces(join_reply.give(subscription))
        self._member.sink.replied()

    def _skip(self) -> Step:
        """Nothing can be given any more. Wake the handler, which may wait for an answer."""
        for subscription in self._member.subscriptions:
            if subscription.join_reply is not None:
                subscription.join_reply = None
                self._member.sink.replied()
            while subscription.next_queued is not None:
                if subscription.pop_queued().reply:
                    self._member.sink.replied()
        return Step.IDLE

    def _give_queued(self, subscription: Subscription) -> None:
        """Give the events queued at this position as one write, up to an answer to a command."""
        frames: list[bytes] = []
        reply: Pieces = ()
        while (
            not reply
            and (event := subscription.next_queued) is not None
            and event.position <= subscription.cursor
        ):
            reply = subscription.pop_queued().reply
            if not reply:
                frames.append(event.frame)
        self._outbound.put(b"".join(frames), tuple(accumulate(map(len, frames))))
        if reply:
            self._outbound.put_pieces(reply)
            self._member.sink.replied()

    @staticmethod
    def _upto(subscription: Subscription) -> int:
        queued = subscription.next_queued
        return subscription.limit if queued is None else min(subscription.limit, queued.position)

    def _give_stored(self, subscription: Subscription, upto: int) -> Step:
        found = subscription.room.ring.slice(subscription.cursor, upto, CHUNK)
        if found is None:
            return Step.READ
        self._feed(subscription, found.data, found.ends)
        return Step.MORE

    def _feed(self, subscription: Subscription, data: bytes, ends: tuple[int, ...]) -> None:
        given = self._outbound.feed(data, ends)
        subscription.cursor += given
        self._observer.delivered(given)

    def _finish(self, subscription: Subscription) -> Step:
        """Everything up to the limit has been given: end the subscription, or go live."""
        if subscription.end is not None:
            self._member.subscriptions.remove(subscription)
            self._observer.release(subscription)
            return Step.MORE
        if subscription.seen < subscription.room.number:
            return (
                Step.IDLE
            )  # a fan-out under way hasn't reached this subscription yet, and will wake the writer
        if subscription.presence_dropped:
            subscription.presence_dropped = False
            self._outbound.put_pieces(subscription.room.tell_members(subscription))
            return Step.MORE
        if self._member.missed is not None:
            missed, self._member.missed = self._member.missed, None
            for room, activity in missed.items():
                self._outbound.put(text_frame(events.activity(room.name, *activity)))
            return Step.MORE
        if self._outbound.pending:
            return Step.MORE
        subscription.live = True
        return Step.IDLE

    async def read_on(self) -> None:
        """Give the next piece from the log.

        Raises Disconnect if the next message is no longer kept, or if the log was replaced; and Unavailable.
        """
        subscription = self._member.subscriptions[0]
        room, after, upto = subscription.room, subscription.cursor, self._upto(subscription)
        changes = room.changes
        try:
            records = await self._engine.read(
                room.name, room.epoch, after, upto, limit=READ_LIMIT, max_bytes=CHUNK
            )
        except Replaced:
            raise replaced_room() from None
        except Trimmed as gone:
            if (
                subscription.join_reply is not None
                and subscription.join_reply.first < gone.first <= subscription.room.head + 1
            ):
                subscription.join_reply.first = gone.first
                return
            raise Disconnect(CloseCode.TOO_FAR_BEHIND, "too far behind") from None
        # Only this task moves a lagging cursor, and a switch meanwhile leaves the subscription where it is.
        if not records or records[0].id != after + 1:
            raise Disconnect(CloseCode.INTERNAL_ERROR, "the log has a hole")
        ring = subscription.room.ring
        piece = ring.slice(after, upto, CHUNK)  # another reader may have filled the ring
        if piece is None:
            shown = changes.applied_to(records)
            frames = [text_frame(events.record(room.name, record)) for record in shown]
            piece = ring.remember_read(frames, after)
        if subscription.join_reply is not None:
            subscription.join_reply.begin(subscription)  # there may be newer messages by now
            self._give_join_reply(subscription, subscription.join_reply)
            if subscription.cursor >= piece.last_id:
                return
            piece = piece.between(subscription.cursor, upto)
        self._feed(subscription, piece.data, piece.ends)
