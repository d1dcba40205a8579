"""Messages that are too old or too many, removed from all rooms of the store, also from those not in use.

Owns: the walk over the keys of each server.

1. One node does it for all: the node that `leads`. The other nodes look again later.
2. It walks over the keys of each server slowly, by at most CALLS_PER_SECOND. So the traffic doesn't feel it,
   however many rooms there are.
3. A room loses a bounded number of messages by each call, and is called again until it has no more to lose.
4. A server that can't be reached is skipped: the next walk comes by again.

Doesn't know: which messages are kept. The functions in the store know.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from chatroom.core.errors import Unavailable
from chatroom.engines.redis import library
from chatroom.engines.redis.library import Command, RoomKeys
from chatroom.engines.redis.shard import Shard
from chatroom.engines.redis.shards import Shards

CALLS_PER_SECOND = 50
"""So many calls are made in a second at most."""
KEYS = 200
"""One call looks at so many keys; a room has up to four."""


class Sweeper:
    """The walks of one node."""

    def __init__(
        self,
        store: Shards,
        prefix: str,
        prune: Callable[[RoomKeys], Command],
        *,
        leads: Callable[[], bool],
        pruned: Callable[[str, int], None],
        every: float,
        patience: float,
    ) -> None:
        """`pruned` gets a room and the first id that it keeps.

        `every`: seconds between two walks; `patience`: seconds for an answer.
        """
        self._store = store
        self._prefix = prefix
        self._prune = prune
        self._leads = leads
        self._pruned = pruned
        self._every = every
        self._patience = patience

    async def run(self) -> None:
        """Walk again and again, until cancelled."""
        while True:
            await trio.sleep(self._every)
            for shard in self._store.all:
                with suppress(Unavailable):
                    await self._walk(shard)

    async def _walk(self, shard: Shard) -> None:
        """Over all keys of one server. Raises Unavailable."""
        cursor = b"0"
        while self._leads():
            scan = library.scan_rooms(self._prefix, cursor, KEYS)
            cursor, keys = await shard.call(scan, patience=self._patience)
            await trio.sleep(1 / CALLS_PER_SECOND)
            rooms = [room for key in keys if (room := self._room_of(key)) is not None]
            while rooms:
                left = await self._call_upon(rooms)
                await trio.sleep(len(rooms) / CALLS_PER_SECOND)
                rooms = left
            if cursor == b"0":
                break

    def _room_of(self, key: bytes) -> str | None:
        with suppress(ValueError):
            return library.room_of(self._prefix, key.decode())
        return None  # a key of another program

    async def _call_upon(self, rooms: list[str]) -> list[str]:
        """Prune each of them once, all together. Returns the rooms that have more to lose."""
        done = trio.Event()
        waiting = len(rooms)
        left: list[str] = []

        def answered(room: str, reply: Any) -> None:
            nonlocal waiting
            match reply:
                case ["ok", first, more]:
                    self._pruned(room, first)
                    if more:
                        left.append(room)
            waiting -= 1
            if not waiting:
                done.set()

        for room in rooms:
            keys = RoomKeys.of(self._prefix, room)
            self._store.submit(
                keys.slot,
                self._prune(keys),
                partial(answered, room),
                patience=self._patience,
                retry=True,
            )
        await done.wait()
        return left
