"""What a room's log holds, before and after it is stored, and the other values that engines take and give.

    records    Message, Edited, Deleted, Moderated: everything that has an id
    drafts     Draft, with the Edit, Delete or Moderate that it is; and the Outcome of a draft
    places     Head, Page, RoomLog, RoomSummary: where a log stands, a piece of it, all of it
    presence   Change: what several nodes tell each other of who is in a room
    retention  Retain: how long messages are kept

1. Times are in milliseconds since 1970 UTC. Ids are dense within a room and its epoch, from 1 on, whatever
   the record is.
2. A log is append-only: what changes a message is a record of its own. The message is kept as it is now.
3. The first five fields of all records are the same: id, time, who did it, the text, the client's `cid`.
4. A Message is a named tuple, since making one takes a third of the time of a frozen dataclass.

These values decide nothing. They don't know who stores them.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from chatroom.core.sanctions import Action, Sanction

# Records


class Message(NamedTuple):
    """A stored message as it is now. `edited` and `deleted` are the ids of what changed it last."""

    id: int
    ts: int
    username: str
    text: str
    cid: str | None
    edited: int | None = None
    deleted: int | None = None


class Edited(NamedTuple):
    """The author of the message `about` has replaced its text by `text`; empty once that was replaced, too.

    `replaces` is the id of the record that held the text until then: of the message, or of an earlier edit.
    """

    id: int
    ts: int
    username: str
    text: str
    cid: str | None
    about: int
    replaces: int


class Deleted(NamedTuple):
    """`username` has deleted the message `about` of `author`. `replaces` is as in Edited; `text` is empty."""

    id: int
    ts: int
    username: str
    text: str
    cid: str | None
    about: int
    author: str
    replaces: int


class Moderated(NamedTuple):
    """`username` has taken an action against `target`, for the reason `text`; None as `until` sets no end."""

    id: int
    ts: int
    username: str
    text: str
    cid: str | None
    action: Action
    target: str
    until: int | None


Record = Message | Edited | Deleted | Moderated
"""Everything that has an id in a room's log."""

STORED = (Message, Edited, Deleted, Moderated)
"""The same for isinstance, the most frequent one first."""


def text_bytes(record: Record) -> int:
    """The bytes of its text in UTF-8, by which limits on reading count."""
    text = record.text
    return len(text) if text.isascii() else len(text.encode())


# Drafts


class Edit(NamedTuple):
    """Replace the text of the message `about` by the draft's, if it is younger than `within` milliseconds."""

    about: int
    within: int


class Delete(NamedTuple):
    """Delete the message `about`: one's own that is younger than `within` ms, a moderator any."""

    about: int
    within: int


class Moderate(NamedTuple):
    """Take an action against `target`, for so many seconds (None: without end). The draft's text says why."""

    action: Action
    target: str
    seconds: int | None


Act = Edit | Delete | Moderate


@dataclass(slots=True)
class Draft:
    """A message that may be stored but is not stored yet; or, with an `act`, what is to be done instead.

    `moderator`: who drafts it holds the right `m` in the room, so sanctions don't bite.
    """

    room: str
    username: str
    text: str
    cid: str | None
    ts: int
    moderator: bool = False
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same (username, cid) is stored already with the same content, under this id."""

    id: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same (username, cid) is stored already with other content; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Done:
    """It is as the draft wants it already; nothing was stored."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no message that the draft could change; nothing was stored."""


class Denial(Enum):
    """Why a draft was denied, in words for its author."""

    MUTED = "You are muted in this room"
    BANNED = "You are banned from this room"
    NOT_YOURS = "Not your message"
    TOO_LATE = "The message is too old to be changed"
    TOO_MANY = "Too many sanctions are in force in this room"


@dataclass(frozen=True, slots=True)
class Denied:
    """The draft's author may not do this; nothing was stored. `until` is when a sanction ends, if it does."""

    why: Denial
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """This draft alone could not be stored, by a fault of ours. Certainly nothing was stored."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store gave no answer that can be trusted: the draft may be there or not."""


Refused = Duplicate | Conflict | Done | NotFound | Denied | Failed | Unknown
Outcome = Record | Refused
"""What has become of a draft: the record, if it is stored."""


# Places in a log


@dataclass(frozen=True, slots=True)
class Head:
    """Where a room's log stands: the name of its history and the id of its last record (0: none).

    `others`: how many of all records that it ever had are no messages. `sanctions`: those in force.
    """

    epoch: str
    last_id: int
    others: int = 0
    sanctions: tuple[Sanction, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of history in ascending order, of messages alone; `more`: there may be more that way."""

    messages: tuple[Message, ...]
    more: bool


class RoomLog(NamedTuple):
    """One room's log as it stands: its records are dense from `first` to `last`; none where first > last.

    `others`: as in Head. `sanctions`: all that are known, also those that have ended, by name.
    """

    room: str
    epoch: str
    first: int
    last: int
    others: int = 0
    sanctions: tuple[Sanction, ...] = ()

    @property
    def messages(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


class RoomSummary(NamedTuple):
    """A room in which something is stored: its last record's id and time, and the names in it on all nodes.

    `members` is None if only this node has members, and knows better.
    """

    room: str
    last_id: int
    last_ts: int
    members: int | None = None


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
