"""Giving a room's broadcast to its members: offer, never wait, never raise.

1. A broadcast is offered once to each stay, by its number in the room; a stay that has caught up by
   itself meanwhile is not offered it again.
2. What a socket does not take at once is not kept for it: the stay lags, and its connection's writer
   reads on from the cursor.
3. In a big room the task gives way every few hundred members, so that no room holds up the others'
   readers. Membership does not change meanwhile.
"""

import trio

from chatroom.tasks.room import Broadcast, Room

GIVE_WAY = 256


class Fanout:
    """The one place where live frames are handed out; counts what it delivered of the stored messages."""

    __slots__ = ("_give_way", "deliveries")

    def __init__(self, give_way: int = GIVE_WAY) -> None:
        self._give_way = give_way
        self.deliveries = 0

    def count(self, given: int) -> None:
        """Count stored messages that a writer has given."""
        self.deliveries += given

    async def __call__(self, room: Room, broadcast: Broadcast) -> None:
        """Offer `broadcast`, the last one taken from the room, to all members; then answer who asked."""
        number = room.number
        visited = 0
        for stay in room.stays:
            if stay.seen >= number:
                continue
            stay.seen = number
            own = broadcast.for_user(stay.member.username) if broadcast.skips else broadcast
            if stay.live and (count := len(own.ends)):
                taken = stay.offer(own.data, own.ends)
                if taken == count:
                    stay.cursor = room.head
                    self.deliveries += own.stored
                else:
                    before = stay.cursor
                    stay.lag(own.items, taken)
                    self.deliveries += stay.cursor - before
                    stay.member.outlet.wake()
            elif not stay.live:
                stay.lag(own.items, 0)
                stay.member.outlet.wake()
            visited += 1
            if not visited % self._give_way:
                await trio.lowlevel.checkpoint()
        room.answer_asks()
