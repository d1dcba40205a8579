"""What the store tells unasked: pushes given out to the broker, and servers that were lost and come back.

Owns: how many messages came by pushes, and which refusals and risks were logged.

1. A push is a hint: it is given out if it belongs to the epoch that this node knows. Else the log decides.
2. What is pushed while a room is being opened is held for the opening.
3. Own messages come back as outcomes. Their push is news only if no append of the room is under way.
4. When a server can be used again, this node's lease is renewed first, so that no node takes this one for
   dead while it states its names again. After a restart of the server all that was shown is verified.
5. Each refusal, and each risk for acknowledged messages, is logged once.

Doesn't know: connections and threads.
"""

import logging

import trio

from chatroom.core.logevents import log_event
from chatroom.engines.engine import Feed
from chatroom.engines.redis.heads import HeadCheck
from chatroom.engines.redis.log import StoreLog
from chatroom.engines.redis.nodelease import NodeLease
from chatroom.engines.redis.presence import PresenceTracker
from chatroom.engines.redis.pushes import Own, Presence, Push, Stored, Typing
from chatroom.engines.redis.shard import Pushes, Shard
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import SharedRoom, SharedRooms

MOST_REFUSALS = 100


class StoreEvents:
    """The Sink of one engine. `foreign`: records of other nodes that came by pushes."""

    def __init__(
        self,
        store: Shards,
        feed: Feed,
        rooms: SharedRooms,
        *,
        presence: PresenceTracker,
        lease: NodeLease,
        heads: HeadCheck,
        log: StoreLog,
    ) -> None:
        self._store = store
        self._feed = feed
        self._rooms = rooms
        self._presence = presence
        self._lease = lease
        self._heads = heads
        self._log = log
        self._begun = False
        self._risks: list[str] = []
        self._refusals: set[str] = set()
        self.foreign = 0

    def begin(self) -> None:
        """Log what is refused from now on: a start that fails says so in one line."""
        self._begun = True

    def end(self) -> None:
        """Log no refusal any more."""
        self._begun = False

    # Pushes

    def subscribed(self, channels: list[bytes]) -> None:
        """See Sink."""
        rooms = [room for channel in channels if (room := self._rooms.by_channel.get(channel)) is not None]
        for room in rooms:
            room.confirmed.set()
        self._heads.look([room for room in rooms if room.used and room.held is None])

    def subscriptions_lost(self, shard: Shard) -> None:
        """See Sink."""
        for room in self._rooms.by_name.values():
            if room.confirmed.is_set() and self._store.of(room.keys.slot) is shard:
                room.confirmed = trio.Event()

    def pushed(self, pushes: Pushes) -> None:
        """See Sink."""
        for channel, push in pushes:
            room = self._rooms.by_channel.get(channel)
            if room is not None and room.used:
                if room.held is not None:
                    room.held.append(push)
                else:
                    self.give_out(room, push)

    def give_out(self, room: SharedRoom, push: Push) -> None:
        """Hand a push to the broker, as far as it is of the room's epoch."""
        feed = self._feed
        match push:
            case Typing(username, active):
                feed.typed(room.name, username, active=active)
            case _ if push.epoch != room.versions.epoch:
                self._heads.look([room])  # the epoch may be the old one or the new one: the log decides
            case Stored(epoch, records):
                self.foreign += len(records)
                room.remember_times(records, feed.shown(room.name))
                feed.arrived(room.name, epoch, records)
            case Own(epoch, last):
                if room.appending:
                    room.own_pushed = (epoch, last)  # its outcome is on the way
                else:
                    self._log.tell_own(room, epoch, last)
            case Presence():
                self._presence.pushed(room, push)

    # Servers

    def regained(self, shard: Shard, *, restarted: bool) -> None:
        """See Sink."""
        self._refusals.clear()
        self.looked_at()
        self._lease.renew()  # first: see rule 4
        rooms = [room for room in self._rooms.used if self._store.of(room.keys.slot) is shard]
        if restarted:  # its log may have gone back, and have got other messages under the same ids
            for room in rooms:
                self._heads.verify(room)
                self._presence.restate(room, reread=True)
        else:
            self._heads.look(rooms)
        self._presence.retry()

    def looked_at(self) -> None:
        """See Sink. Each risk for acknowledged messages is logged once."""
        risks = self._store.risks
        for risk in risks:
            if risk not in self._risks:
                log_event(logging.WARNING, "store_unsafe", reason=risk)
        self._risks = risks

    def refused(self, error: Exception) -> None:
        """See Sink. Each refusal is logged once; a start that fails by it says so in one line."""
        text = str(error)[:200]
        if self._begun and text not in self._refusals:
            if len(self._refusals) >= MOST_REFUSALS:
                self._refusals.clear()
            self._refusals.add(text)
            log_event(logging.ERROR, "store_refused", error=text)
