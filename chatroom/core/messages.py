"""A message before and after it is stored, and what can become of it in between.

A message is a named tuple, which takes a third of a frozen dataclass's time to make.
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
