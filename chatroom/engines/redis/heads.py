"""Heads of rooms, compared with what this node has shown: they find lost pushes and replaced logs.

Owns: the questions for heads that are under way, and how many gaps were found.

1. A push is a hint. So the heads of all rooms are read every few seconds, in a Cluster a quarter of them each
   time, and after each gap of a subscription the heads of all its rooms.
2. Where the store has more than this node has shown, the broker is told how far the log has reached.
3. Where the store has less than was shown of an epoch, or nothing, its log was replaced: the room gets a new
   epoch by compare-and-set, by one node, and all nodes hear of it.
4. After a restart of the server its log may have gone back and have got other messages under the same ids: so
   the time of the last message that was shown is compared, too.
5. A head tells the version of the room's presence as well: a gap there is found in the same way.

Doesn't know: what messages say, and how they are read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from chatroom.core.messages import Head
from chatroom.engines.engine import Feed
from chatroom.engines.redis import library
from chatroom.engines.redis.presence import PresenceTracker
from chatroom.engines.redis.pushes import Versions
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import SharedRoom

HEADS = 200
"""So many rooms' heads are read by one command."""
TURNS = 4
"""In a Cluster, after so many beats all rooms' heads have been read."""


class HeadCheck:
    """The comparison for one engine. `gaps`: how often the store had more than was pushed."""

    def __init__(
        self,
        store: Shards,
        feed: Feed,
        presence: PresenceTracker,
        new_epoch: Callable[[], str],
        *,
        patience: float,
    ) -> None:
        """`patience`: seconds for an answer of the store."""
        self._store = store
        self._feed = feed
        self._presence = presence
        self._new_epoch = new_epoch
        self._patience = patience
        self._turn = 0
        self.gaps = 0

    # Looking

    def look_in_turn(self, rooms: list[SharedRoom]) -> None:
        """Read the heads of those rooms whose turn it is: a Cluster takes one command for each slot."""
        self._turn += 1
        self.look([room for room in rooms if self._in_turn(room)])

    def _in_turn(self, room: SharedRoom) -> bool:
        return not self._store.sharded or (room.keys.slot + self._turn) % TURNS == 0

    def look(self, rooms: list[SharedRoom]) -> None:
        """Read the heads of these rooms."""
        slots: dict[int, list[SharedRoom]] = {}
        for room in rooms:
            if not room.looking:
                slots.setdefault(room.keys.slot if self._store.sharded else 0, []).append(room)
        for slot, together in slots.items():
            for start in range(0, len(together), HEADS):
                self._look_at_some(slot, together[start : start + HEADS])

    def _look_at_some(self, slot: int, rooms: list[SharedRoom]) -> None:
        known = [(room, self._feed.shown(room.name), room.versions.known) for room in rooms]
        for room in rooms:
            room.looking = True
        self._store.submit(
            slot,
            library.heads([room.keys.meta for room in rooms]),
            partial(self._heads_read, known),
            patience=self._patience,
            retry=True,
        )

    def _heads_read(self, known: list[tuple[SharedRoom, Head | None, int]], reply: Any) -> None:
        """`known` has the head that was shown, and the presence's version, before the heads were read."""
        for room, _, _ in known:
            room.looking = False
        match reply:
            case ["ok", found]:
                for (room, shown, version), head in zip(known, found, strict=True):
                    if room.used and room.held is None and shown is not None:
                        self._compare(room, shown, version, head)

    def _compare(self, room: SharedRoom, shown: Head, version: int, head: Any) -> None:
        if not head:
            self.renew(room, shown.epoch)
            return
        epoch, last, newest = head
        if epoch != shown.epoch:
            self.found_replaced(room, epoch, last)
        elif last < shown.last_id:
            self.renew(room, epoch)
        else:
            now = self._feed.shown(room.name)
            if now is not None and last > now.last_id:
                self.gaps += 1
                self._feed.ahead(room.name, epoch, last)
            if newest < version:
                self._presence.restate(room, reread=True)
            else:
                self._presence.expect(room, epoch, newest)

    def verify(self, room: SharedRoom) -> None:
        """Find out whether the store has the messages that were shown."""
        if (shown := self._feed.shown(room.name)) is not None:
            command = library.verify(room.keys, shown.last_id, room.stored_at.get(shown.last_id, 0))
            then = partial(self._verified, room, shown, room.versions.known)
            self._store.submit(room.keys.slot, command, then, patience=self._patience, retry=True)

    def _verified(self, room: SharedRoom, shown: Head, version: int, reply: Any) -> None:
        match reply:
            case ["ok", epoch, last, newest, same] if room.used and room.held is None:
                if epoch == shown.epoch and not same:
                    self.renew(room, epoch)
                else:
                    self._compare(room, shown, version, (epoch, last, newest))
            case ["missing"]:
                self.renew(room, shown.epoch)

    # Replaced logs

    def renew(self, room: SharedRoom, epoch: str) -> None:
        """The store has less than was shown of this epoch: give the room a new one, unless another node was
        first."""
        if not room.renewing and room.used:
            room.renewing = True
            command = library.renew(room.keys, epoch, self._new_epoch())
            self._store.submit(
                room.keys.slot,
                command,
                partial(self._renewed, room),
                patience=self._patience,
                retry=True,
            )

    def _renewed(self, room: SharedRoom, reply: Any) -> None:
        room.renewing = False
        match reply:
            case ["ok", epoch, last]:
                self.found_replaced(room, epoch, last)

    def found_replaced(self, room: SharedRoom, epoch: str, last: int) -> None:
        """The room has another epoch than on this node: tell the broker, and state all names again."""
        if not room.used:
            return
        self._feed.ahead(room.name, epoch, last)
        if room.versions.epoch != epoch:
            room.versions = Versions(epoch, 0)
            self._presence.restate(room, reread=True)
