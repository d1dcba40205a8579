"""A message before and after it is stored, and what can become of it in between.

A message is a named tuple, which takes a third of a frozen dataclass's time to make.

What a copy between a database and a store of several nodes moves.

What several nodes tell each other of who is in a room.

How long messages are kept.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Draft:
    """A message that has been proven storable but is not stored yet; `ts` is in ms since 1970 UTC."""

    room: str
    username: str
    text: str
    cid: str | None
    ts: int


class Message(NamedTuple):
    """A stored message: its id is dense within its room and its room's epoch."""

    id: int
    ts: int
    username: str
    text: str
    cid: str | None


def text_bytes(message: Message) -> int:
    """How long its text is in UTF-8: what a limit on what is read counts."""
    text = message.text
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same (username, cid) with the same text is stored already, under this id."""

    id: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same (username, cid) is stored already with another text; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Failed:
    """This draft alone could not be stored, by a fault of ours; certainly nothing was."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store gave no answer that can be trusted: the draft may be there or not."""


Outcome = Message | Duplicate | Conflict | Failed | Unknown
"""What has become of a draft: the message, if it is stored."""


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


class Change(NamedTuple):
    """A name came into a room on one node (`here`), or its last connection there went.

    `announced`: that changed who is in the room on all nodes together, so it is to be told. `ours`: it was
    on this node.
    """

    username: str
    here: bool
    announced: bool
    ours: bool


@dataclass(frozen=True, slots=True)
class Retain:
    """Messages younger than `seconds`, and the newest `count` of a room; None sets no limit.

    A message goes when it is beyond either limit.
    """

    seconds: float | None = None
    count: int | None = None

    @property
    def everything(self) -> bool:
        """No limit is set."""
        return self.seconds is None and self.count is None
