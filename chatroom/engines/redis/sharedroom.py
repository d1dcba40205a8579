"""What the engine keeps of each room that it listens to."""

from collections.abc import Callable, Iterable

import trio

from chatroom.core.errors import Unavailable
from chatroom.core.messages import Head, Message
from chatroom.engines.redis.library import RoomKeys
from chatroom.engines.redis.pushes import Push, Versions

MARKS = 300
"""So many messages' times are kept."""

Opened = Callable[[Head | Exception], None]


class SharedRoom:
    """One room: its keys, its subscription, and what is to be told of its presence.

    `used`: the broker has it open, or will in a moment. `held`: what is pushed while it is being opened.
    `marks`: when the last message that is shown, and those behind it, had been stored, by id. `own_tip`: own
    messages that were pushed and whose outcome is on the way. `looking`: the store is being asked where the
    room stands.
    `pending`: names and whether they are here, as the store is to be told; `stale`: it is to be told the
    whole. `reread`: the whole is to be read from it. `dead`: nodes whose names are to go.
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
        "marks",
        "name",
        "nodes",
        "own_tip",
        "pending",
        "refused",
        "renewing",
        "reread",
        "stale",
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
        self.own_tip: tuple[str, int] | None = None
        self.renewing = False
        self.looking = False
        self.marks: dict[int, int] = {}
        # Presence
        self.versions = Versions("", 0)
        self.nodes: set[str] = set()
        self.pending: dict[str, bool] = {}
        self.stale = False
        self.reread = False
        self.dead: set[str] = set()
        self.busy = False
        self.gap_since: float | None = None

    def mark(self, messages: Iterable[Message], shown: Head | None) -> None:
        """These messages were handed on; of those before the last one that is `shown` nobody will ask."""
        first = 0 if shown is None else shown.last_id
        for message in messages:
            if message.id >= first:
                self.marks[message.id] = message.ts
        while self.marks and ((oldest := next(iter(self.marks))) < first or len(self.marks) > MARKS):
            del self.marks[oldest]

    def trimmed(self, first: int) -> None:
        """The log keeps its messages from the id `first` on."""
        self.first = max(self.first, first)

    @property
    def unsaid(self) -> bool:
        """The store has yet to be told who is here."""
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
