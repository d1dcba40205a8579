"""Rooms of the store opened, released, and given up when nobody has used them for a while.

Owns: the tasks that open rooms, and which rooms are idle.

1. A room's channel is subscribed to before its head is read, so nothing falls between the two. What is pushed
   meanwhile is held, and given out when the room is open.
2. Each opening ends within its patience, whatever the store does: with the head, or with Unavailable.
3. Names of nodes that have no lease are judged before the roster is told; those of dead nodes are removed.
4. A room that is released stays subscribed to for a while, since its people may come back. At most MOST_IDLE
   such rooms are kept: a client that switches on and on uses very many.
5. A room whose presence the store doesn't know yet isn't given up.

Doesn't know: what is pushed, and what is stored.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from chatroom.core.errors import Unavailable
from chatroom.core.messages import Head
from chatroom.engines.redis import library
from chatroom.engines.redis.commander import HEAVY
from chatroom.engines.redis.library import RoomKeys
from chatroom.engines.redis.nodelease import NodeLease
from chatroom.engines.redis.presence import PresenceTracker
from chatroom.engines.redis.pushes import Push, Versions, sanctions_of
from chatroom.engines.redis.shards import Shards
from chatroom.engines.redis.sharedroom import Opened, SharedRoom, SharedRooms

MOST_IDLE = 1000
"""So many rooms that nobody uses are listened to at most."""


class RoomOpener:
    """The openings of one engine."""

    def __init__(
        self,
        store: Shards,
        rooms: SharedRooms,
        presence: PresenceTracker,
        lease: NodeLease,
        *,
        prefix: str,
        node: str,
        context: Callable[[RoomKeys], str],
        new_epoch: Callable[[], str],
        give_out: Callable[[SharedRoom, Push], None],
        patience: float,
        linger: float,
    ) -> None:
        """`context` describes the node to the store's functions. `give_out` gets the pushes that came while
        the room was opened.

        `patience`: seconds for an opening; `linger`: seconds for which a room that nobody uses is kept.
        """
        self._store = store
        self._rooms = rooms
        self._presence = presence
        self._lease = lease
        self._prefix = prefix
        self._node = node
        self._context = context
        self._new_epoch = new_epoch
        self._give_out = give_out
        self._patience = patience
        self._linger = linger
        self._idle: dict[SharedRoom, None] = {}
        self._tasks: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open rooms until cancelled; `open` is answered Unavailable afterwards."""
        try:
            async with trio.open_nursery() as self._tasks:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._tasks = None

    # Opening

    def open(self, room: str, opened: Opened) -> None:
        """See Engine."""
        if self._tasks is None:
            opened(Unavailable("the store is closed"))
            return
        if (known := self._rooms.by_name.get(room)) is None:
            keys = RoomKeys.of(self._prefix, room)
            known = SharedRoom(room, keys, self._context(keys))
            self._rooms.add(known)
            self._store.subscribe(keys.slot, keys.channel)
        self._idle.pop(known, None)
        known.used = True
        known.held = []
        self._tasks.start_soon(self._open_room, known, opened)

    async def _open_room(self, room: SharedRoom, opened: Opened) -> None:
        """The task of one room's opening."""
        answer: Any = Unavailable("the store does not answer")
        with trio.move_on_after(self._patience):
            try:
                await room.confirmed.wait()
                answer = await self._find(room)
            except Unavailable as error:
                answer = error
        held, room.held = room.held or (), None
        if isinstance(answer, Exception):
            self.release(room.name)
            opened(answer)
            return
        _, epoch, last, first, version, who, others, sanctions = answer
        room.epoch, room.last, room.first, room.own_pushed = epoch, last, first, None
        room.stored_at = {}
        room.versions = Versions(epoch, version)
        opened(Head(epoch, last, others, sanctions_of(sanctions or ())))
        self._presence.relist(room, epoch, last, version, who)
        for push in held:
            self._give_out(room, push)

    async def _find(self, room: SharedRoom) -> Any:
        """The head and the presence of the room, without the names of nodes that are known to be dead."""
        command = library.open_room(room.keys, self._new_epoch())
        found = await self._store.call(room.keys.slot, command, patience=self._patience, weight=HEAVY)
        if found[0] == "copying":
            raise Unavailable("the room is being copied into the store")
        strangers = {node for node, names in found[5].items() if names} - self._lease.others
        strangers.discard(self._node)
        if strangers:
            with suppress(Unavailable):  # the beat judges them later
                await self._lease.read()
            if dead := self._lease.dead(strangers):
                command_reap = library.reap(room.keys, room.context, dead)
                await self._store.call(room.keys.slot, command_reap, patience=self._patience)
                found = await self._store.call(room.keys.slot, command, patience=self._patience)
        return found

    # Releasing

    def release(self, room: str) -> None:
        """See Engine."""
        known = self._rooms.by_name[room]
        known.used = False
        known.idle_since = trio.current_time()
        self._idle[known] = None
        if len(self._idle) > MOST_IDLE:
            self.give_up_idle()

    def give_up_idle(self) -> None:
        """Give up rooms that were unused for a while, and those beyond MOST_IDLE."""
        now = trio.current_time()
        too_many = len(self._idle) - MOST_IDLE
        for room in list(self._idle):  # the room that is idle for the longest comes first
            if too_many <= 0 and now < room.idle_since + self._linger:
                break
            if not room.presence_pending:
                too_many -= 1
                self._give_up(room)

    def _give_up(self, room: SharedRoom) -> None:
        del self._idle[room]
        self._rooms.remove(room)
        self._presence.drop(room)
        self._store.unsubscribe(room.keys.channel)
        self._store.send_and_forget(room.keys.slot, library.forget(room.keys))
