"""All rooms of the store in which something is kept: how far each has come, and how many names are in it.

1. It costs as much as there are keys, in pieces: so many keys of a server by one call, then the rooms among
   them. In a Cluster each room takes a call of its own; those of a piece go as one pipeline.
2. The names are those of all nodes, each once. Those of a node that has died count until it is found dead.

Doesn't know: which rooms are in use.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from chatroom.core.errors import Unavailable
from chatroom.core.messages import RoomSummary
from chatroom.engines.redis import library
from chatroom.engines.redis.library import RoomKeys
from chatroom.engines.redis.shards import Shards

KEYS = 1000
"""So many keys of a server are looked at by one call; a room has up to four."""
TOGETHER = 50
"""So many rooms are asked about by one call, where one server has them all."""


async def read_summaries(store: Shards, prefix: str, *, patience: float) -> list[RoomSummary]:
    """See Engine. `patience`: seconds for each answer of the store. Raises Unavailable."""
    found: dict[str, RoomSummary] = {}
    for shard in store.all:
        cursor = None
        while cursor != b"0":
            scan = library.scan_rooms(prefix, cursor or b"0", KEYS)
            cursor, keys = await shard.call(scan, patience=patience)
            rooms = [room for key in keys if (room := _room_of(prefix, key)) is not None]
            found |= await _ask(store, prefix, rooms, patience=patience)
    return list(found.values())


def _room_of(prefix: str, key: bytes) -> str | None:
    with suppress(ValueError):
        return library.room_of(prefix, key.decode())
    return None  # a key of another program


async def _ask(
    store: Shards, prefix: str, rooms: Sequence[str], *, patience: float
) -> dict[str, RoomSummary]:
    """The summaries of these rooms, as far as something is kept in them. Raises Unavailable."""
    found: dict[str, RoomSummary] = {}
    failures: list[Exception] = []
    together = 1 if store.sharded else TOGETHER
    pieces = [rooms[at : at + together] for at in range(0, len(rooms), together)]
    waiting, done = len(pieces), trio.Event()

    def answered(piece: Sequence[str], reply: Any) -> None:
        nonlocal waiting
        if isinstance(reply, Exception):
            failures.append(reply)
        else:
            for room, line in zip(piece, reply[1], strict=True):
                if line:
                    found[room] = RoomSummary(room, *line)
        waiting -= 1
        if not waiting:
            done.set()

    for piece in pieces:
        keys = [RoomKeys.of(prefix, room) for room in piece]
        then = partial(answered, piece)
        store.submit(keys[0].slot, library.summaries(keys), then, patience=patience, retry=True)
    if pieces:
        await done.wait()
    if failures:
        raise Unavailable(str(failures[0]))
    return found
