"""A message before and after it is stored, and what can become of it in between.

What is made for every message is a named tuple: that takes a third of a frozen dataclass's time.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Draft(NamedTuple):
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


class Stored(NamedTuple):
    """The draft is durable under this id."""

    message: Message


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


Outcome = Stored | Duplicate | Conflict | Failed | Unknown


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
