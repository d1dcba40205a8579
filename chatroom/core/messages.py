"""A message before and after it is stored, and the other values that engines take and give.

    messages   Draft, Message, and the Outcome of a draft
    places     Head, Page, RoomLog: where a log stands, a piece of it, all of it
    presence   Change: what several nodes tell each other of who is in a room
    retention  Retain: how long messages are kept

1. Times are in milliseconds since 1970 UTC. Ids are dense within a room and its epoch, from 1 on.
2. A Message is a named tuple, since making one takes a third of the time of a frozen dataclass.

These values decide nothing. They don't know who stores them.
"""

from dataclasses import dataclass
from typing import NamedTuple

# Messages


@dataclass(slots=True)
class Draft:
    """A message that may be stored but is not stored yet."""

    room: str
    username: str
    text: str
    cid: str | None
    ts: int


class Message(NamedTuple):
    """A stored message."""

    id: int
    ts: int
    username: str
    text: str
    cid: str | None


def text_bytes(message: Message) -> int:
    """The bytes of its text in UTF-8, by which limits on reading count."""
    text = message.text
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same (username, cid) is stored already with the same text, under this id."""

    id: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same (username, cid) is stored already with another text; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Failed:
    """This draft alone could not be stored, by a fault of ours. Certainly nothing was stored."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store gave no answer that can be trusted: the draft may be there or not."""


Outcome = Message | Duplicate | Conflict | Failed | Unknown
"""What has become of a draft: the message, if it is stored."""


# Places in a log


@dataclass(frozen=True, slots=True)
class Head:
    """Where a room's log stands: the name of its history and the id of its last message (0: none)."""

    epoch: str
    last_id: int


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of history in ascending order; `more` says that there is more in the direction read."""

    messages: tuple[Message, ...]
    more: bool


class RoomLog(NamedTuple):
    """One room's log as it stands: its messages are dense from `first` to `last`; none where first > last."""

    room: str
    epoch: str
    first: int
    last: int

    @property
    def messages(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


# Presence


class Change(NamedTuple):
    """A name came into a room on one node (`here`), or its last connection left the room there.

    `announced`: that changed who is in the room on all nodes together, so members are told. `ours`: it was on
    this node.
    """

    username: str
    here: bool
    announced: bool
    ours: bool


# Retention


@dataclass(frozen=True, slots=True)
class Retain:
    """Messages younger than `seconds`, and the newest `count` of a room; None sets no limit.

    A message goes when it is beyond either limit.
    """

    seconds: float | None = None
    count: int | None = None

    @property
    def everything(self) -> bool:
        """Whether no limit is set."""
        return self.seconds is None and self.count is None
