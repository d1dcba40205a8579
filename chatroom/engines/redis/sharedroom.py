"""The rooms that the engine listens to, and what it keeps of each of them.

Owns: the state of a room that the parts of the engine share; each part says what it does with its share.

1. A room is listened to from its opening on, until nobody has used it for a while.
2. The times of records are kept from the last one that is shown on, at most MOST_TIMES of them.

Doesn't know: the store.
"""

from collections.abc import Callable, Iterable

import trio

from chatroom.core.errors import Unavailable
from chatroom.core.messages import Head, Record
from chatroom.engines.redis.library import RoomKeys
from chatroom.engines.redis.pushes import Push, Versions

MOST_TIMES = 300
"""So many records' times are kept at most."""

Opened = Callable[[Head | Exception], None]


class SharedRoom:
    """One room: its keys, its subscription, and its presence.

    `used`: the broker has the room open, or will in a moment. `held`: pushes that came while it is being
    opened. `stored_at`: the times of the last record that is shown and of those behind it, by id.
    `own_pushed`: the epoch and last id of own records whose push came before their outcome. `looking`: the
    engine is reading the room's head.

    `pending`: names that the store is to be told of, and whether they are here; `stale`: the store is to be
    told all names. `reread`: all names are to be read from the store. `dead`: nodes whose names are to be
    removed.
    """

    __slots__ = (
        "appending",
        "busy",
        "confirmed",
        "context",
        "dead",
        "epoch",
        "first",
        "gap_since",
        "held",
        "idle_since",
        "keys",
        "last",
        "looking",
        "name",
        "nodes",
        "own_pushed",
        "pending",
        "refused",
        "renewing",
        "reread",
        "stale",
        "stored_at",
        "used",
        "versions",
    )

    def __init__(self, name: str, keys: RoomKeys, context: str) -> None:
        self.name = name
        self.keys = keys
        self.context = context
        self.used = True
        self.idle_since = 0.0
        self.confirmed = trio.Event()
        self.held: list[Push] | None = []
        self.epoch = ""
        self.last = 0
        self.first = 1
        self.appending = 0
        self.refused = ""
        self.own_pushed: tuple[str, int] | None = None
        self.renewing = False
        self.looking = False
        self.stored_at: dict[int, int] = {}
        # Presence
        self.versions = Versions("", 0)
        self.nodes: set[str] = set()
        self.pending: dict[str, bool] = {}
        self.stale = False
        self.reread = False
        self.dead: set[str] = set()
        self.busy = False
        self.gap_since: float | None = None

    def remember_times(self, records: Iterable[Record], shown: Head | None) -> None:
        """Keep the times of records that were handed on, from the last one that is `shown` on."""
        first = 0 if shown is None else shown.last_id
        for record in records:
            if record.id >= first:
                self.stored_at[record.id] = record.ts
        while self.stored_at and (
            (oldest := next(iter(self.stored_at))) < first or len(self.stored_at) > MOST_TIMES
        ):
            del self.stored_at[oldest]

    def trimmed(self, first: int) -> None:
        """The log keeps its messages from the id `first` on."""
        self.first = max(self.first, first)

    @property
    def presence_pending(self) -> bool:
        """The store has yet to be told of names."""
        return self.busy or self.stale or bool(self.pending)


class SharedRooms:
    """The rooms that the engine listens to, by their names and by their channels."""

    def __init__(self) -> None:
        self.by_name: dict[str, SharedRoom] = {}
        self.by_channel: dict[bytes, SharedRoom] = {}

    def add(self, room: SharedRoom) -> None:
        """The room is listened to from now on."""
        self.by_name[room.name] = self.by_channel[room.keys.channel.encode()] = room

    def remove(self, room: SharedRoom) -> None:
        """The room is no longer listened to."""
        del self.by_name[room.name], self.by_channel[room.keys.channel.encode()]

    def listened_to(self, name: str) -> SharedRoom:
        """The room of this name. Raises Unavailable where it isn't listened to."""
        if (room := self.by_name.get(name)) is None:
            raise Unavailable("the room has been given up")
        return room

    @property
    def used(self) -> list[SharedRoom]:
        """The rooms that the broker has open, or will in a moment."""
        return [room for room in self.by_name.values() if room.used]
