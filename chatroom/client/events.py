"""What a client's core tells the program that uses it.

Owns the values. Rules:

1. For each room the events are in the order of its log: a Recorded comes once, and whatever isn't shown
   between two of them is told by a Gap or a Replaced.
2. Texts and names in them are as the server sent them: whoever shows one makes it printable first.

It doesn't know how events come about; see `core`.
"""

from dataclasses import dataclass
from enum import Enum

from chatroom.client.frames import Frame


@dataclass(frozen=True, slots=True)
class Entered:
    """The client is in `room` under `username`, at first or again; `resumed` if it goes on where it was.

    `members` are the names of the others. The records up to `last_id` that are to be shown come next.
    """

    room: str
    username: str
    epoch: str
    last_id: int
    members: tuple[str, ...]
    resumed: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """The next record of the room: a message, or an edit, a deletion, an action of a moderator.

    `old` tells that it was there when the room was entered.
    """

    frame: Frame
    id: int
    old: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """The records between the ids `after` and `before` aren't shown, both exclusive.

    `filled`: the messages among them that are still kept come next, as they are now; other records don't.
    """

    room: str
    after: int
    before: int
    filled: bool


@dataclass(frozen=True, slots=True)
class Replaced:
    """The room has another history now: ids begin anew, and what was shown belongs to the old one."""

    room: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A draft is stored as `id` (for `duplicate`, by an earlier try), or refused for good: `error` says why.

    A draft that the server had done before, and needed no record for, has neither.
    """

    cid: str
    id: int | None = None
    duplicate: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to what was asked under `cid`; None if the connection was lost before it came."""

    cid: str
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class News:
    """`joined`, `left`, `typing`, `members`, `activity`, or an `error` that answers nothing."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class SwitchRefused:
    """The client stays where it is, since the server refuses the room."""

    room: str
    error: str


@dataclass(frozen=True, slots=True)
class Expiring:
    """The right by which the client is connected ends in `seconds`, unless a fresh token is shown by
    `auth`.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection, for `reason`; the next try is in `seconds`."""

    reason: str
    seconds: float


class Ending(Enum):
    """Why a client doesn't come back."""

    STOPPED = "stopped"
    """The program asked for it."""
    REFUSED = "refused"
    """The server doesn't let the client in, or sent it away."""
    ALIEN = "alien"
    """What answers is no chatroom, or isn't trusted."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The client doesn't come back by itself; `reason` is the server's, or ours."""

    ending: Ending
    reason: str = ""


Event = (
    Entered | Recorded | Gap | Replaced | Settled | Answered | News | SwitchRefused | Expiring | Lost | Ended
)
