"""Reading on: what a room is missing is read from its log, for the broker.

1. One reading takes a bounded number of messages. The broker asks again while something is missing.
2. A hint of another epoch is doubted. Only the log's own word ends a room.
3. Nothing of the room changes here but the doubt. The broker shows what was found.

It doesn't know members.
"""

from collections.abc import Sequence
from typing import NamedTuple

import trio

from chatroom.core.errors import Replaced, Trimmed, Unavailable
from chatroom.core.messages import Record
from chatroom.engines.engine import Engine
from chatroom.rooms.room import Room

READ_AGAIN = 0.25
"""Seconds until a log that couldn't be read is asked again for what a room is missing."""
READ_LIMIT = 200
"""Messages that one reading takes at most."""


class ReadOn(NamedTuple):
    """The messages that a room was missing, up to `tip`; or why they can't be read."""

    room: Room
    messages: Sequence[Record] | Exception
    tip: int = 0


async def read_on(engine: Engine, room: Room) -> ReadOn:
    """Read what `room` is missing. If the log can't be read, this takes READ_AGAIN seconds."""
    tip = 0
    try:
        if room.doubted:
            await _look_at_epoch(engine, room)
        tip = room.sequence.tip
        found: Sequence[Record] | Exception = await _read_missing(engine, room)
    except (Replaced, Trimmed) as error:
        found = error
    except Unavailable as error:
        await trio.sleep(READ_AGAIN)
        found = error
    return ReadOn(room, found, tip)


async def _look_at_epoch(engine: Engine, room: Room) -> None:
    room.doubted = False  # a doubt that comes from here on may be newer than the answer
    try:
        head = await engine.head(room.name)
    except Unavailable:
        room.doubted = True
        raise
    if head.epoch != room.epoch:
        raise Replaced


async def _read_missing(engine: Engine, room: Room) -> Sequence[Record]:
    gap = room.sequence.gap
    if gap is None:
        return ()
    after, upto = gap
    return await engine.read(room.name, room.epoch, after, upto, limit=READ_LIMIT)
