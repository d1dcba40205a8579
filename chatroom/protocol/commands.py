"""What a client may ask for, as frozen values; only the codec makes them from JSON.

Every command carries the `cid` that its one answer must repeat, or None.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Post(NamedTuple):
    """Say `text` (stripped, within the limit) in the current room."""

    text: str
    cid: str | None


@dataclass(frozen=True, slots=True)
class SwitchRoom:
    """Leave the current room for `room`, resuming after id `since` of history `epoch` if given."""

    room: str
    since: int | None
    epoch: str | None
    cid: str | None


@dataclass(frozen=True, slots=True)
class Typing:
    """The user has begun (`active`) or stopped typing."""

    active: bool
    cid: str | None


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Read at most `limit` stored messages with ids below `before`, or above `after`, or the newest."""

    before: int | None
    after: int | None
    limit: int
    cid: str | None


@dataclass(frozen=True, slots=True)
class ListMembers:
    """Who is in the room?"""

    cid: str | None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Renew the connection with a fresh token for the same username."""

    token: str
    cid: str | None

    def __repr__(self) -> str:
        return "Authenticate(token=…)"


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""

    cid: str | None


Command = Post | SwitchRoom | Typing | ReadHistory | ListMembers | Authenticate | Ping
