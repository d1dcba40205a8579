"""Fan-out: a room's broadcast is offered to its members. An offer never waits and never raises.

1. A broadcast is offered once to each subscription, by its number in the room. A subscription that has caught
   up by itself meanwhile is not offered it again.
2. What a socket does not take at once is not kept for it: the subscription lags, and its connection's writer
   reads on from the cursor.
3. After so much work the fan-out gives way, so that no room, and no number of rooms, holds up the readers.
   Membership does not change meanwhile.
4. A room that isn't small is told how long its fan-out took, so that presence alone takes no more than its
   share.

It doesn't know what a frame says.
"""

import time
from collections.abc import Callable, Iterator

import trio

from chatroom.rooms.broadcast import Broadcast
from chatroom.rooms.room import Room, Subscription

GIVE_WAY = 1024 * 1024
"""Bytes that are offered between two turns of other tasks."""
MEMBER_BYTES = 4096
"""Bytes that an offer counts for, beside its own."""
WOKEN_SECONDS = 50e-6
"""Seconds that a writer takes, once woken, to give a lagging member its part."""
FEW = 8
"""A fan-out to so many members takes less time than one join. It isn't measured, and presence never waits."""


class Fanout:
    """Hands out live frames, and counts the stored messages among them (`deliveries`).

    `clock` gives seconds of work: by default, of this thread's time on a core.
    """

    __slots__ = ("_clock", "_few", "_give_way", "_work", "deliveries")

    def __init__(
        self, give_way: int = GIVE_WAY, few: int = FEW, *, clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._give_way = give_way
        self._few = few
        self._clock = clock
        self._work = 0  # bytes offered since other tasks had a turn
        self.deliveries = 0

    def count(self, given: int) -> None:
        """Count stored messages that a writer has given."""
        self.deliveries += given

    def tell(self, room: Room, broadcast: Broadcast) -> Iterator[None]:
        """Offer `broadcast`, the last one of `room`, to all members. Yields where it gives way."""
        number, head = room.number, room.head
        data, ends, skips = broadcast.data, broadcast.ends, broadcast.skips
        size, count = len(data) + MEMBER_BYTES, len(ends)
        measured = len(room.subscriptions) > self._few
        begun = self._clock() if measured else 0.0
        spent, woken = 0.0, 0
        for subscription in room.subscriptions:
            if subscription.seen >= number:
                continue
            subscription.seen = number
            if not subscription.live:
                subscription.lag(broadcast)
                subscription.member.sink.wake()
                woken += 1
                self._work += MEMBER_BYTES
            elif skips and subscription.member.username in skips:
                woken += self._offer_part(subscription, room, broadcast)
                self._work += size
            else:
                taken = subscription.offer(data, ends)
                if taken == count:
                    subscription.cursor = head
                    self.deliveries += broadcast.stored
                else:
                    self._leave_behind(subscription, broadcast, taken)
                    woken += 1
                self._work += size
            if self._work >= self._give_way:
                self._work = 0
                if measured:
                    spent += self._clock() - begun
                yield
                if measured:
                    begun = self._clock()
        if measured:
            spent += self._clock() - begun + woken * WOKEN_SECONDS
            room.delay_presence(trio.current_time(), spent)

    def _offer_part(self, subscription: Subscription, room: Room, broadcast: Broadcast) -> bool:
        """Offer `broadcast` to a member that must not get all of it. Return whether that member lags then."""
        username = subscription.member.username
        data, ends = broadcast.without(username)
        taken = subscription.offer(data, ends) if data else 0
        if taken == len(ends):
            subscription.cursor = room.head
            self.deliveries += broadcast.stored
            return False
        self._leave_behind(subscription, broadcast, broadcast.place(username, taken))
        return True

    def _leave_behind(self, subscription: Subscription, broadcast: Broadcast, taken: int) -> None:
        before = subscription.cursor
        subscription.lag(broadcast, taken)
        self.deliveries += subscription.cursor - before
        subscription.member.sink.wake()
